"""The databases of accounts and containers: one SQLite file each.

``accounts|containers/<partition>/<suffix>/<hash>/<hash>.db`` of a device. Tables:

- ``info``: one row: whose it is, its timestamps, its counts (changed in the transaction that changes a row), its metadata.
- ``row``: the listing. Deleted rows stay as marks until they are reclaimed, apart from the others (``deleted`` leads the key),
  so that a listing does not walk over them. ``seq`` grows with every change of this file: peers are given what is later than
  what they have.
- ``known``: up to which ``seq`` of another file (by its id) this one has taken rows over.

``digest`` in ``info`` is the XOR of a hash of each row that is not deleted: two files with one digest list the same.
"""
import collections
import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import uuid

import orjson

from ..spans import successor
from . import shards, strays
from .devices import make_folders, sync_folder
from .diskfile import quarantine

LOG = logging.getLogger(__name__)
ZERO = '0000000000.00000'
INFO = """
CREATE TABLE info (
    account TEXT NOT NULL, container TEXT NOT NULL, id TEXT NOT NULL, created TEXT NOT NULL,
    put_stamp TEXT NOT NULL, delete_stamp TEXT NOT NULL, changed_stamp TEXT NOT NULL, status TEXT NOT NULL DEFAULT '',
    policy INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0,
    count INTEGER NOT NULL DEFAULT 0, objects INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    reported TEXT NOT NULL DEFAULT '', metadata TEXT NOT NULL DEFAULT '{}');
CREATE TABLE known (id TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"""


class Corrupt(Exception):
    """The file is no database any more."""


class Gone(Exception):
    """The file is not there any more: its device was changed, or it was quarantined."""


class Broker:
    """One database. Its methods may be called by many threads."""

    kind = folder = ''
    SCHEMA = ''
    COLUMNS = ()            # of ``row``, without deleted and seq; the first is the name
    DELETED = 'stamp'       # the column that says when a row was deleted

    def __init__(self, path):
        self.path = path
        self.lock = threading.RLock()
        try:
            self.inode = os.stat(path).st_ino
        except OSError:
            raise Gone(path) from None
        self.connection = sqlite3.connect(f'file:{path}?mode=rw', uri=True, timeout=10, isolation_level=None,
                                          check_same_thread=False)
        with self.guarded():
            self.connection.execute('PRAGMA journal_mode=WAL')
            self.connection.execute('PRAGMA synchronous=NORMAL')
            self.connection.execute('PRAGMA cache_size=-512')
            self._prepare()

    def _prepare(self):
        pass

    @classmethod
    def create(cls, path, device, account, container, stamp, temporary, policy=0):
        """Make the file, unless it is there; both are well."""
        part = temporary
        os.makedirs(os.path.dirname(part), exist_ok=True)
        connection = sqlite3.connect(part, isolation_level=None)
        try:
            # The file is synced as a whole before anybody sees it.
            connection.executescript(f'PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; BEGIN; {INFO} {cls.SCHEMA} COMMIT;')
            connection.execute('INSERT INTO info (account, container, id, created, put_stamp, delete_stamp, changed_stamp, policy) '
                               'VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
                               (account, container, uuid.uuid4().hex, stamp, ZERO, ZERO, stamp, policy))
        finally:
            connection.close()
        try:
            with open(part, 'rb') as file:
                os.fsync(file.fileno())
            folder = os.path.dirname(path)
            changed = make_folders(folder, device)
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
            for each in [folder, *reversed(changed)]:
                sync_folder(each)
        finally:
            for name in (part, part + '-wal', part + '-shm'):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)

    @contextlib.contextmanager
    def guarded(self):
        """Turn what SQLite raises for a broken file into :class:`Corrupt`."""
        try:
            yield
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise Corrupt(str(error)) from error

    @contextlib.contextmanager
    def reading(self):
        """The connection, for one thread."""
        with self.lock, self.guarded():
            yield self.connection

    @contextlib.contextmanager
    def writing(self):
        """The connection within a transaction."""
        with self.lock, self.guarded():
            self.connection.execute('BEGIN IMMEDIATE')
            try:
                yield self.connection
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute('ROLLBACK')
                raise
            self.connection.execute('COMMIT')

    def close(self):
        """End the connection."""
        with self.lock, contextlib.suppress(sqlite3.Error):
            self.connection.close()

    # What it is

    NAMES = ('account', 'container', 'id', 'created', 'put_stamp', 'delete_stamp', 'changed_stamp', 'status', 'policy', 'seq',
             'digest', 'count', 'objects', 'bytes', 'reported', 'metadata')
    SELECT = f'SELECT {", ".join(NAMES)} FROM info'     # noqa: S608 (names of columns)

    def info(self):
        """The row of ``info`` as a dict; ``metadata``: ``{name: [value, timestamp]}``."""
        with self.reading() as connection:
            row = connection.execute(self.SELECT).fetchone()
        return self._info(row)

    def _info(self, row):
        if row is None:
            raise Corrupt('it says nothing of itself')
        found = dict(zip(self.NAMES, row, strict=True))
        found['metadata'] = orjson.loads(found['metadata'])
        return found

    @staticmethod
    def is_deleted(info):
        """Whether what it stands for is deleted."""
        return not info['count'] and not info.get('rows') and info['delete_stamp'] > info['put_stamp']

    # Changing what it is

    def update(self, put=None, delete=None, metadata=None, policy=None, status=None):
        """Take timestamps and metadata over, each where it is newer.

        :param put, delete: timestamps. :param metadata: ``{name: [value, timestamp]}``; a value '' removes.
        :returns: the info before.
        """
        with self.writing() as connection:
            before = info = self._info(connection.execute(self.SELECT).fetchone())
            info = dict(info)
            was = self.is_deleted(info) or info['put_stamp'] == ZERO
            info['put_stamp'] = max(info['put_stamp'], put or ZERO)
            info['delete_stamp'] = max(info['delete_stamp'], delete or ZERO)
            known = dict(info['metadata'])
            for name, (value, stamp) in (metadata or {}).items():
                if name not in known or known[name][1] < stamp:
                    known[name] = [value, stamp]
            now = self.is_deleted(info)
            if now:
                known = {name: ['' if stamp <= info['delete_stamp'] else value, stamp] for name, (value, stamp) in known.items()}
            if policy is not None:
                info['policy'] = policy
                self._policy_changes(connection, info)
            if status:
                info['status'] = status
            if now != was or policy is not None:
                info['changed_stamp'] = max(info['changed_stamp'], put or ZERO, delete or ZERO)
            connection.execute('UPDATE info SET put_stamp = ?, delete_stamp = ?, changed_stamp = ?, status = ?, policy = ?, '
                               'metadata = ?',
                               (info['put_stamp'], info['delete_stamp'], info['changed_stamp'], info['status'], info['policy'],
                                orjson.dumps(known).decode()))
        return before

    # Rows

    @classmethod
    def merged(cls, old, new):
        """The row that holds of two for one name (tuples: deleted, then COLUMNS), the newer; ``old`` itself if nothing changes."""
        raise NotImplementedError

    @classmethod
    def weight(cls, row):
        """What a row that is not deleted adds to ``(objects, bytes)``."""
        raise NotImplementedError

    @classmethod
    def _mark(cls, row):
        text = '\0'.join(map(str, row[1:])).encode('utf-8', 'surrogatepass')
        return int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:7], 'big')

    def put(self, rows, source=None, redirect=False):
        """Merge rows (tuples: deleted, then COLUMNS); the newest of a name holds.

        :param source: ``(id, seq)`` of the file that they come from, noted with them.
        :param redirect: raise :class:`~kodiak.storage_object.backend.shards.Moved` for one row that belongs to a shard.
        :returns: how many changed something.
        """
        columns, changed = self.COLUMNS, 0
        names = ', '.join(columns)
        find = f'SELECT deleted, {names} FROM row WHERE deleted IN (0, 1) AND name = ?'     # noqa: S608
        place = f'INSERT OR REPLACE INTO row (deleted, {names}, seq) VALUES ({", ".join("?" * (len(columns) + 2))})'  # noqa: S608
        with self.writing() as connection:
            execute = connection.execute
            if redirect:
                self._redirect(connection, rows[0][1])
            seq, digest, count, objects, size, account, policy = execute(
                'SELECT seq, digest, count, objects, bytes, account, policy FROM info').fetchone()
            self._note_strays(connection, rows, account, policy)
            for new in rows:
                old = execute(find, (new[1],)).fetchone()
                row = new if old is None else self.merged(old, new)
                if row is old:
                    continue
                seq += 1
                changed += 1
                if old is not None:
                    if not old[0]:
                        digest ^= self._mark(old)
                        one, two = self.weight(old)
                        count, objects, size = count - 1, objects - one, size - two
                    if old[0] != row[0]:
                        execute('DELETE FROM row WHERE deleted = ? AND name = ?', (old[0], old[1]))
                if not row[0]:
                    digest ^= self._mark(row)
                    one, two = self.weight(row)
                    count, objects, size = count + 1, objects + one, size + two
                execute(place, (*row, seq))
            if changed:
                execute('UPDATE info SET seq = ?, digest = ?, count = ?, objects = ?, bytes = ?',
                        (seq, digest, count, objects, size))
            if source is not None:
                execute('INSERT OR REPLACE INTO known (id, seq) VALUES (?, ?)', source)
        return changed

    def _note_strays(self, connection, rows, account, policy):
        pass

    def _policy_changes(self, connection, info):
        pass

    def later(self, seq, limit=2000):
        """Rows changed after ``seq``, in that order: tuples of deleted, COLUMNS, seq."""
        names = ', '.join(self.COLUMNS)
        with self.reading() as connection:
            return connection.execute(f'SELECT deleted, {names}, seq FROM row WHERE seq > ? ORDER BY seq LIMIT ?',  # noqa: S608
                                      (seq, limit)).fetchall()

    def known(self, other):
        """Up to which ``seq`` of the file with the id ``other`` rows were taken over."""
        with self.reading() as connection:
            row = connection.execute('SELECT seq FROM known WHERE id = ?', (other,)).fetchone()
        return row[0] if row else 0

    def reclaim(self, before):
        """Drop the marks of deletions before a timestamp, and metadata removed before it."""
        with self.writing() as connection:
            connection.execute(f'DELETE FROM row WHERE deleted = 1 AND {self.DELETED} < ?', (before,))    # noqa: S608
            text, = connection.execute('SELECT metadata FROM info').fetchone()
            known = orjson.loads(text)
            kept = {name: pair for name, pair in known.items() if pair[0] != '' or pair[1] >= before}
            if len(kept) != len(known):
                connection.execute('UPDATE info SET metadata = ?', (orjson.dumps(kept).decode(),))

    def check(self):
        """Raise :class:`Corrupt` if SQLite finds the file damaged."""
        with self.reading() as connection:
            found = connection.execute('PRAGMA quick_check(1)').fetchone()
            if found is None or found[0] != 'ok':
                raise Corrupt(str(found))

    # Listing

    def listing(self, columns, limit, marker='', end='', prefix='', delimiter='', reverse=False, path=None, where='',
                within=('', '')):
        """Rows, as tuples of ``columns`` (the name first, and one more), in the order of their names' bytes; a group of names
        that share all up to ``delimiter`` as ``(text,)``.

        :param marker: names after it. :param end: names before it. With ``reverse`` both the other way round.
        :param path: only what is right under this folder, without groups.
        :param within: no names but those after the first of these and up to the second; '' is no bound.
        """
        if path is not None:
            prefix, delimiter = (path.rstrip('/') + '/' if path else ''), '/'
        low, high = (end, marker) if reverse else (marker, end)
        floor = successor(prefix) if prefix else None
        above, upper = max(low, within[0]), high
        if within[1] and (not upper or within[1] < upper):
            upper = within[1] + '\0'        # (the least name after it)
        if floor is not None and (not upper or floor < upper):
            upper = floor
        start, inclusive = (prefix, True) if prefix > above else (above, False)
        out = []
        select = f'SELECT {", ".join(columns)} FROM row WHERE deleted = 0{where}'      # noqa: S608
        with self.reading() as connection:
            while len(out) < limit:
                text, values = select, []
                if start or not inclusive:
                    text += ' AND name >= ?' if inclusive else ' AND name > ?'
                    values.append(start)
                if upper:
                    text += ' AND name < ?'
                    values.append(upper)
                text += f' ORDER BY name {"DESC" if reverse else "ASC"} LIMIT ?'
                values.append(limit - len(out))
                cursor = connection.execute(text, values)
                if not delimiter:
                    out += cursor.fetchall()
                    return out
                group, seen, asked = None, None, values[-1]
                for seen in cursor:
                    asked -= 1
                    name = seen[0]
                    cut = name.find(delimiter, len(prefix))
                    if cut < 0 or (path is not None and cut == len(name) - 1):
                        if path is None or name != prefix:
                            out.append(seen)
                        continue
                    group = name[:cut + len(delimiter)]
                    break
                cursor.close()
                if group is None:
                    if asked:
                        return out
                    start, inclusive, upper = (start, inclusive, seen[0]) if reverse else (seen[0], False, upper)
                    continue
                if path is None and not (low and not reverse and group <= low) and not (high and group >= high):
                    out.append((group,))
                if reverse:
                    # With path, a name that is the group's own text is no part of it.
                    upper = group if path is None else group + '\0'
                else:
                    start, inclusive = successor(group), True
                    if start is None:
                        return out
        return out


class Containers(shards.Sharded, strays.Strays, Broker):
    """A container: its objects."""

    kind, folder = 'container', 'containers'
    COLUMNS = ('name', 'stamp', 'changed', 'size', 'etag', 'content_type', 'policy')
    SCHEMA = """
CREATE TABLE row (
    deleted INTEGER NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, changed TEXT NOT NULL, size INTEGER NOT NULL,
    etag TEXT NOT NULL, content_type TEXT NOT NULL, policy INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (deleted, name)) WITHOUT ROWID;
CREATE INDEX row_seq ON row (seq);
""" + shards.TABLES
    NAMES = (*Broker.NAMES, 'sharding', 'shards', 'shard_objects', 'shard_bytes')
    SELECT = (f'SELECT {", ".join("info." + name for name in Broker.NAMES)}, sharding.state, sharding.digest, '    # noqa: S608
              'sharding.objects, sharding.bytes FROM info LEFT JOIN sharding')

    @classmethod
    def merged(cls, old, new):
        """The newest data holds, or its deletion; of the same data, the newest metadata: whatever the order they come in."""
        return new if (new[2], new[0], *new[3:]) > (old[2], old[0], *old[3:]) else old

    @classmethod
    def weight(cls, row):
        """One object, and its bytes."""
        return 1, row[4]


class Accounts(Broker):
    """An account: its containers."""

    kind, folder, DELETED = 'account', 'accounts', 'gone'
    COLUMNS = ('name', 'stamp', 'gone', 'objects', 'bytes', 'policy', 'told')
    SCHEMA = """
CREATE TABLE row (
    deleted INTEGER NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, gone TEXT NOT NULL, objects INTEGER NOT NULL,
    bytes INTEGER NOT NULL, policy INTEGER NOT NULL, told TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (deleted, name)) WITHOUT ROWID;
CREATE INDEX row_seq ON row (seq);
"""

    @classmethod
    def merged(cls, old, new):
        """The newest of each timestamp; counts and policy from who told last."""
        stamp, gone = max(old[2], new[2]), max(old[3], new[3])
        objects, size, policy, told = new[4:] if new[7] > old[7] else old[4:]
        row = (int(gone > stamp and not objects), old[1], stamp, gone, objects, size, policy, told)
        return old if row == old else row

    @classmethod
    def weight(cls, row):
        """The objects of a container, and their bytes."""
        return row[4], row[5]

    def policies(self):
        """``{policy index: (containers, objects, bytes)}``."""
        with self.reading() as connection:
            return {index: tuple(rest) for index, *rest in connection.execute(
                'SELECT policy, count(*), sum(objects), sum(bytes) FROM row WHERE deleted = 0 GROUP BY policy')}


class Brokers:
    """Open databases, the least used of which are closed.

    :param on_corrupt: called with ``(kind, device, path)`` after a damaged one was quarantined.
    """

    KINDS = {'account': Accounts, 'container': Containers}

    def __init__(self, devices, limit=256, on_corrupt=None):
        self.devices, self.limit, self.on_corrupt = devices, limit, on_corrupt
        self._open = collections.OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def path(device, kind, part, digest):
        """Where a database is, on the device with the folder ``device``."""
        return f'{device}/{kind}s/{part}/{digest[-3:]}/{digest}/{digest}.db'

    def get(self, kind, path):
        """The broker of a file; None if there is none."""
        with self._lock:
            broker = self._open.get(path)
            if broker is not None:
                self._open.move_to_end(path)
        try:
            inode = os.stat(path).st_ino
        except OSError:
            inode = None
        if broker is not None:
            if broker.inode == inode:
                return broker
            self._drop(path, broker)
        if inode is None:
            return None
        try:
            broker = self.KINDS[kind](path)
        except Gone:
            return None
        except (Corrupt, sqlite3.OperationalError) as error:
            self.damaged(kind, path, error)
            return None
        old = []
        with self._lock:
            known = self._open.setdefault(path, broker)
            if known is not broker:
                old.append(broker)
            while len(self._open) > self.limit:
                old.append(self._open.popitem(last=False)[1])
        for each in old:
            each.close()
        return known

    def _drop(self, path, broker):
        with self._lock:
            if self._open.get(path) is broker:
                del self._open[path]
        broker.close()

    def damaged(self, kind, path, error):
        """Put a damaged file away; its peers have what it had."""
        broker = self._open.get(path)
        if broker is not None:
            self._drop(path, broker)
        device = path.rsplit('/', 5)[0]
        where = quarantine(device, os.path.dirname(path), kind + 's')
        LOG.error('The %s database %s is damaged (%s); it was moved to %s', kind, path, error, where)
        if where is not None and self.on_corrupt is not None:
            self.on_corrupt(kind, os.path.basename(device), path)

    def forget(self, path):
        """Close a database whose file is to be removed."""
        broker = self._open.get(path)
        if broker is not None:
            self._drop(path, broker)

    def close(self):
        """Close all."""
        with self._lock:
            brokers, self._open = list(self._open.values()), collections.OrderedDict()
        for broker in brokers:
            broker.close()
