"""The database of one service: an engine, read and write transactions, a few column types, migrations.

Kodiak uses SQLAlchemy Core throughout: ``models.py`` holds ``Table`` objects on one ``MetaData``,
queries are ``select()`` and rows are plain tuples with names. A list of 1,000 rows costs a quarter of
what the ORM takes. SQLite, PostgreSQL and MySQL/MariaDB are supported; what differs stands here.
"""
import contextlib
import contextvars
import datetime
import fcntl
import importlib
import os
import random
import sqlite3
import threading
import time
import uuid

import orjson
import sqlalchemy as sa
from sqlalchemy import event, exc

NAMING = {
    'ix': 'ix_%(table_name)s_%(column_0_N_name)s', 'uq': 'uq_%(table_name)s_%(column_0_N_name)s',
    'ck': 'ck_%(table_name)s_%(constraint_name)s', 'pk': 'pk_%(table_name)s',
    'fk': 'fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s',
}

_counter = contextvars.ContextVar('kodiak_query_counter', default=None)


def metadata():
    """A ``MetaData`` whose constraints have names, so that migrations can drop them again."""
    return sa.MetaData(naming_convention=NAMING)


def utcnow():
    """Now, as a naive UTC datetime, which is what every timestamp column holds."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def parse_time(text):
    """The naive UTC datetime of a text in ISO 8601; without an offset it is UTC already.

    :raises ValueError: it is none, or lies before or after what can be counted.
    """
    # The plus of an offset that stands bare in a query arrives as a space.
    moment = datetime.datetime.fromisoformat(text.replace(' ', '+'))
    try:
        return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError as error:
        raise ValueError(f'{text} is out of range') from error


def new_id():
    """A random UUID with dashes."""
    return str(uuid.uuid4())


def new_hex():
    """A random UUID without dashes, as identity uses for its ids."""
    return uuid.uuid4().hex


class JSON(sa.types.TypeDecorator):
    """Any JSON value in a text column, read and written by orjson. NULL stays None."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect):
        return dialect.type_descriptor(_long_text(dialect))

    def process_bind_param(self, value, dialect):
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value, dialect):
        return _loads(value)

    def result_processor(self, dialect, coltype):
        # In place of the decorator's, which calls two functions a value: lists are made of thousands.
        return _loads


def _loads(value):
    return None if value is None else orjson.loads(value)


class LongText(sa.types.TypeDecorator):
    """Text of up to 16 MiB."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect):
        return dialect.type_descriptor(_long_text(dialect))


class Moment(sa.types.TypeDecorator):
    """A naive UTC datetime that keeps its microseconds."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect):
        # MySQL's DATETIME drops them unless told otherwise.
        if dialect.name not in ('mysql', 'mariadb'):
            return dialect.type_descriptor(sa.DateTime())
        from sqlalchemy.dialects import mysql
        return dialect.type_descriptor(mysql.DATETIME(fsp=6))


def _long_text(dialect):
    # MySQL's TEXT ends at 64 KiB; PostgreSQL's and SQLite's have no length.
    if dialect.name not in ('mysql', 'mariadb'):
        return sa.Text()
    from sqlalchemy.dialects import mysql  # here, as a dialect is a megabyte in each process
    return mysql.MEDIUMTEXT()


class Database:
    """Engine and transactions.

    :param url: an SQLAlchemy URL, for example ``sqlite:////var/lib/kodiak/image/image.sqlite``.
    :param pool_size: connections kept; as many again may be opened under load.
    """

    def __init__(self, url, pool_size=10):
        url = sa.engine.make_url(url)
        self.sqlite = url.get_backend_name() == 'sqlite'
        options = {'pool_pre_ping': not self.sqlite, 'pool_size': pool_size, 'max_overflow': pool_size * 2}
        if self.sqlite:
            options['connect_args'] = {'timeout': 60, 'check_same_thread': False}
        elif url.get_backend_name() == 'postgresql':
            options['isolation_level'] = 'READ COMMITTED'
        else:
            options['pool_recycle'] = 600
            options['isolation_level'] = 'READ COMMITTED'
        self.url = url
        self.engine = sa.create_engine(url, **options)
        self._writer = _Turn(url.database) if self.sqlite else contextlib.nullcontext()
        if self.sqlite:
            event.listen(self.engine, 'connect', self._sqlite_connect)
            event.listen(self.engine, 'begin', self._sqlite_begin)

    @staticmethod
    def _sqlite_connect(connection, record):
        connection.isolation_level = None
        # The pages of the file are mapped, which all connections and processes share; what each keeps for itself is small.
        for pragma in ('journal_mode=WAL', 'synchronous=NORMAL', 'foreign_keys=ON', 'temp_store=MEMORY',
                       'mmap_size=268435456', 'cache_size=-1000'):
            connection.execute('PRAGMA ' + pragma)

    @staticmethod
    def _sqlite_begin(connection):
        # A deferred transaction that turns into a writer can fail with "database is locked" whatever
        # the timeout; one that says at once that it will write waits its turn.
        write = 'after_commit' in connection.info
        try:
            # Past SQLAlchemy, whose care costs more than the statement.
            connection.connection.driver_connection.execute('BEGIN IMMEDIATE' if write else 'BEGIN')
        except sqlite3.OperationalError as error:
            raise exc.OperationalError('BEGIN', None, error) from error

    @contextlib.contextmanager
    def read(self):
        """A connection in a read transaction: one snapshot for all its queries."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self):
        """A connection in a write transaction, committed at the end, rolled back by an exception.

        Functions given to :func:`after_commit` run when the transaction has been committed. Keep it
        short and do nothing in it that waits: no HTTP, no RPC.
        """
        hooks = []
        with self._writer, self.engine.connect() as connection:
            connection.info['after_commit'] = hooks
            try:
                with connection.begin():
                    yield connection
            finally:
                connection.info.pop('after_commit', None)
        for hook in hooks:
            hook()

    def transact(self, function, *args, attempts=8, **kwargs):
        """``function(connection, *args, **kwargs)`` in a write transaction, run again where it lost a race.

        Deadlocks, serialization failures and a locked SQLite file are retried with growing pauses;
        ``function`` must therefore touch nothing but the connection.
        """
        for attempt in range(attempts):
            try:
                with self.write() as connection:
                    return function(connection, *args, **kwargs)
            except exc.DBAPIError as error:
                if attempt == attempts - 1 or not lost_race(error):
                    raise
                time.sleep(random.uniform(0, 0.02 * 2 ** attempt))

    def healthy(self):
        """True if the database answers a trivial query now."""
        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql('SELECT 1')
            return True
        except exc.SQLAlchemyError:
            return False

    def dispose(self):
        """Close every connection (after a fork the child must not share them)."""
        self.engine.dispose(close=False)

    def close(self):
        """Close every connection of this process."""
        self.engine.dispose()


class _Turn:
    """One writer at a time in an SQLite file, in turn.

    SQLite's own way to wait for another writer is to sleep and look again, longer each time. The threads of a process wait for
    each other by a lock, the processes by one on the file ``<database>.turn``, which the kernel gives on at once and takes
    back from a process that dies.
    """

    def __init__(self, path):
        self._lock = threading.Lock()
        self._path = None if path in (None, '', ':memory:') else path + '.turn'
        self._file = None       # (process id, descriptor): a lock on a descriptor from before a fork would be the parent's too

    def __enter__(self):
        self._lock.acquire()
        try:
            if self._path is not None:
                fcntl.flock(self._open(), fcntl.LOCK_EX)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_):
        try:
            if self._path is not None:
                fcntl.flock(self._file[1], fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def _open(self):
        if self._file is None or self._file[0] != os.getpid():
            self._file = os.getpid(), os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            if os.geteuid() == 0:
                # A command that root runs must not lock the service out: as SQLite does with its own files.
                with contextlib.suppress(FileNotFoundError):
                    owner = os.stat(self._path.removesuffix('.turn'))
                    os.fchown(self._file[1], owner.st_uid, owner.st_gid)
        return self._file[1]


def lost_race(error):
    """True if a DBAPI error means that another transaction was in the way and a retry may succeed."""
    text = str(error.orig).lower()
    return any(word in text for word in ('deadlock', 'could not serialize', 'database is locked',
                                         'lock wait timeout', 'record has changed'))


def after_commit(connection, function):
    """Run ``function()`` once the write transaction of ``connection`` is committed (hints, nudges)."""
    connection.info['after_commit'].append(function)


def is_duplicate(error):
    """True if an ``IntegrityError`` is a broken unique constraint, on any of the three databases."""
    text = str(error.orig).lower()
    return 'unique' in text or 'duplicate' in text


def as_dict(row):
    """A result row as a dictionary; None stays None."""
    return None if row is None else dict(row._mapping)


def one(connection, query):
    """The first row of ``query`` as a dictionary, or None."""
    return as_dict(connection.execute(query).first())


def all_dicts(connection, query):
    """Every row of ``query`` as a dictionary."""
    return [dict(row) for row in connection.execute(query).mappings()]


def upsert(connection, table, values, keys):
    """Insert a row or, where ``keys`` are taken, update its other columns."""
    dialect = connection.dialect.name
    if dialect == 'mysql':
        from sqlalchemy.dialects.mysql import insert
        statement = insert(table).values(values)
        changed = {name: statement.inserted[name] for name in values if name not in keys}
        connection.execute(statement.on_duplicate_key_update(**changed))
        return
    module = importlib.import_module('sqlalchemy.dialects.' + dialect)
    statement = module.insert(table).values(values)
    changed = {name: statement.excluded[name] for name in values if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=changed))


def _count(connection, cursor, statement, parameters, context, executemany):
    counter = _counter.get()
    if counter is not None and not statement.startswith(('BEGIN', 'PRAGMA', 'SAVEPOINT', 'RELEASE')):
        counter.append(statement)


@contextlib.contextmanager
def count_queries():
    """Collect the SQL statements that this thread runs inside the block: ``with count_queries() as q: ...``."""
    if not event.contains(sa.engine.Engine, 'before_cursor_execute', _count):
        event.listen(sa.engine.Engine, 'before_cursor_execute', _count)     # only now: it costs each statement something
    statements = []
    token = _counter.set(statements)
    try:
        yield statements
    finally:
        _counter.reset(token)
