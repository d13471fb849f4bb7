"""The shard ranges in a container's database.

Tables: ``shard``, a row for each range, the container's own (its bounds and state) under its own name; ``sharding``, one row:
what follows from them, and how far this file's rows have been copied to shards (``context``, of this file alone).

A container is ``unsharded``; ``sharding`` while its rows are copied (it lists and takes rows as ever); ``sharded`` once the shards
list and take rows in its place, all at one moment; ``collapsed`` when it was sharded and has its rows itself again.
"""
import contextlib
import hashlib
import sqlite3

import orjson

from ..spans import ACTIVE, FOUND, PREFIX, SHARDED, SHARDING, SHRINKING, SHRUNK, Plan, Range, root_of, segments

TABLES = """
CREATE TABLE IF NOT EXISTS shard (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, lower TEXT NOT NULL, upper TEXT NOT NULL, objects INTEGER NOT NULL,
    bytes INTEGER NOT NULL, meta_stamp TEXT NOT NULL, state INTEGER NOT NULL, state_stamp TEXT NOT NULL, deleted INTEGER NOT NULL,
    epoch TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sharding (
    state TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, objects INTEGER NOT NULL, bytes INTEGER NOT NULL,
    previous TEXT NOT NULL, context TEXT NOT NULL);
"""
DONE = (SHARDED, SHRUNK)
BUSY = (SHARDING, SHRINKING)
COUNTED = (ACTIVE, SHARDING, SHRINKING)


class Moved(Exception):
    """A row belongs to another container."""

    def __init__(self, target):
        super().__init__(target.name)
        self.target = target


def state_of_own(own):
    """What a container's own range says of it."""
    if own is None or not own.epoch:
        return 'unsharded'
    return 'sharding' if own.state in BUSY else 'sharded' if own.state in DONE else 'collapsed'


class Table:
    """All ranges of a database, to be changed within a transaction."""

    def __init__(self, key, rows, previous, context, created):
        self.key, self.ranges, self.previous, self.context, self._created = key, rows, previous, context, created
        self.before = (dict(rows), previous, context)
        self.policies = set()       # those of the container, as its servers say

    @property
    def own(self):
        """The container's own range."""
        return self.ranges.get(self.key) or Range(self.key, self._created, state=ACTIVE, state_stamp=self._created)

    @own.setter
    def own(self, value):
        self.ranges[self.key] = value

    @property
    def others(self):
        """The ranges of its shards, deleted ones too."""
        return [found for name, found in self.ranges.items() if name != self.key]

    @property
    def promised(self):
        """Whether all rows of this file are in the shards of its epoch: it takes no other then."""
        own, context = self.own, self.context
        return bool(context and own.state in BUSY and context['epoch'] == own.epoch and context['complete'])

    def merge(self, ranges):
        """Take ranges over, each where it is newer."""
        for new in ranges:
            old = self.ranges.get(new.name)
            self.ranges[new.name] = new if old is None else old.merged(new)

    def merge_message(self, own, previous, ranges):
        """Take over what another file of the same container says (see :meth:`Sharded.message`).

        The ranges of one epoch belong together. Of two epochs the later holds, but for what has been decided: a container that is
        sharded takes none that does not follow upon its own, and one whose rows are all in their shards waits for the decision.
        """
        mine = self.own
        if own.epoch != mine.epoch:
            decided, follows = own.state in DONE, previous >= mine.epoch or state_of_own(mine) == 'collapsed'
            if mine.state in DONE and mine.epoch:
                adopt = own.epoch > mine.epoch and (decided or follows)
            else:
                adopt = decided or (own.epoch > mine.epoch and not self.promised)
            if not adopt:
                bounds = own._replace(state=mine.state, state_stamp=mine.state_stamp, epoch=mine.epoch)
                self.own = mine.merged(bounds)
                return
            self.ranges = {self.key: mine._replace(state_stamp='')}
            self.context = None
        self.previous = max(self.previous, previous)
        self.merge([own, *ranges])


class Sharded:
    """What a container's database has of shard ranges; mixed into its :class:`~kodiak.storage_object.backend.broker.Broker`."""

    _plan = (None, None)

    def _prepare(self):
        with contextlib.suppress(sqlite3.OperationalError):      # (full, or read-only: then it has them already, or is of no use)
            self.connection.executescript(TABLES)

    @property
    def key(self):
        """Its own name as a range has it."""
        info = self.info()
        return f'{info["account"]}/{info["container"]}'

    def _info(self, row):
        found = super()._info(row)
        found['rows'] = found['count']
        found['sharding'] = found['sharding'] or 'unsharded'
        if found['sharding'] == 'sharded' and root_of(found) is None:
            # What is in its shards; rows here are on their way to them.
            found.update(count=found['shard_objects'], objects=found['shard_objects'], bytes=found['shard_bytes'])
        return found

    def _table(self, connection):
        account, container, created = connection.execute('SELECT account, container, created FROM info').fetchone()
        rows = {row[0]: Range(*row) for row in connection.execute(f'SELECT {", ".join(Range._fields)} FROM shard')}    # noqa: S608
        previous, context = connection.execute('SELECT previous, context FROM sharding').fetchone() or ('', '')
        return Table(f'{account}/{container}', rows, previous, orjson.loads(context) if context else None, created)

    def table(self):
        """Its ranges, to look at (a :class:`Table`)."""
        with self.reading() as connection:
            return self._table(connection)

    @contextlib.contextmanager
    def changing(self, seq=None):
        """Its ranges, to change: a :class:`Table`, written at the end.

        :param seq: raise :class:`Busy` if the last change of a row is another.
        """
        with self.writing() as connection:
            if seq is not None and connection.execute('SELECT seq FROM info').fetchone()[0] != seq:
                raise Busy
            table = self._table(connection)
            yield table
            if (table.ranges, table.previous, table.context) != table.before:
                self._write(connection, table)

    def _write(self, connection, table):
        for name, found in table.ranges.items():
            if table.before[0].get(name) != found:
                connection.execute(f'INSERT OR REPLACE INTO shard VALUES ({", ".join("?" * len(Range._fields))})', found)  # noqa: S608
        for name in table.before[0].keys() - table.ranges.keys():
            connection.execute('DELETE FROM shard WHERE name = ?', (name,))
        live = [found for found in table.others if not found.deleted]
        counted = [found for found in live if found.state in COUNTED]
        text = '\n'.join(sorted(repr(found._replace(objects=0, bytes=0, meta_stamp='')) for found in table.ranges.values()))
        digest = hashlib.md5(text.encode('utf-8', 'surrogatepass'), usedforsecurity=False).hexdigest() if table.ranges else ''
        version, = connection.execute('SELECT version FROM sharding').fetchone() or (0,)
        connection.execute('DELETE FROM sharding')
        connection.execute('INSERT INTO sharding VALUES (?, ?, ?, ?, ?, ?, ?)', (
            state_of_own(table.own), version + 1, digest, sum(found.objects for found in counted),
            sum(found.bytes for found in counted), table.previous, orjson.dumps(table.context).decode() if table.context else ''))

    def message(self):
        """What a fellow is told of the ranges; None if there are none."""
        table = self.table()
        if not table.ranges:
            return None
        return {'own': table.own.wire(), 'previous': table.previous, 'ranges': [found.wire() for found in table.others]}

    def merge_message(self, message):
        """Take over what a fellow told."""
        with self.changing() as table:
            table.merge_message(*read_message(message))

    def merge_ranges(self, ranges, known=False):
        """Take over what a shard told of itself, and of those that came of it.

        :param known: only counts of ranges that there are. :returns: False if it cannot be taken now.
        """
        with self.changing() as table:
            if known:
                for new in ranges:
                    old = table.ranges.get(new.name)
                    if old is None:
                        return False        # it may come to be known
                    if old.deleted:
                        continue
                    if any(each.state == SHRINKING and not each.deleted and each.name != new.name and new.meets(each)
                           for each in table.others):
                        return False        # it has rows that are counted in the other still
                    table.merge([old._replace(objects=new.objects, bytes=new.bytes, meta_stamp=new.meta_stamp)])
                return True
            if state_of_own(table.own) not in ('sharded', 'collapsed'):
                return False
            table.merge(ranges)
            return True

    def plan(self, connection=None):
        """Where its names are: a :class:`~kodiak.storage_object.spans.Plan`, within its bounds. Of the container itself: None."""
        with self.reading() as found:
            version, = (connection or found).execute('SELECT version FROM sharding').fetchone() or (0,)
            if self._plan[0] != version:
                table = self._table(connection or found)
                own = table.own
                live = [each for each in table.others if not each.deleted]
                self._plan = (version, Plan(segments(live, own.lower, own.upper)))
            return self._plan[1]

    def _redirect(self, connection, name):
        """Raise :class:`Moved` if a row is to go to a shard."""
        row = connection.execute('SELECT state FROM sharding').fetchone()
        if row is not None and row[0] == 'sharded':
            target = self.plan(connection).find(name)
            if target is not None:
                raise Moved(target)

    # Copying and moving rows

    def save_context(self, context):
        """Keep how far rows were copied."""
        with self.writing() as connection:
            connection.execute('UPDATE sharding SET context = ?', (orjson.dumps(context).decode(),))

    def span(self, lower, upper, deleted, after, limit):
        """Rows as :meth:`later` gives them, by name: of ``(lower, upper]``, those after the name ``after``."""
        names = ', '.join(self.COLUMNS)
        text, values = f'SELECT deleted, {names}, seq FROM row WHERE deleted = ? AND name > ?', [deleted, max(lower, after)]  # noqa: S608
        if upper:
            text += ' AND name <= ?'
            values.append(upper)
        with self.reading() as connection:
            return connection.execute(text + ' ORDER BY name LIMIT ?', (*values, limit)).fetchall()

    def outside(self, lower, upper, limit=2000):
        """Rows, as of :meth:`later`, whose names are not in ``(lower, upper]``."""
        found = []
        for deleted in (0, 1):
            if lower:
                found += self.span('', lower, deleted, '', limit)
            if upper:
                found += self.span(upper, '', deleted, '', limit)
        return found

    def points(self, size, lower, upper):
        """The upper bounds of ranges of so many objects each, the last but one at least half as many; without the last."""
        found, last = [], lower
        with self.reading() as connection:
            while True:
                text, values = 'SELECT name FROM row WHERE deleted = 0 AND name > ?', [last]
                if upper:
                    text += ' AND name <= ?'
                    values.append(upper)
                text += ' ORDER BY name LIMIT 1 OFFSET ?'
                row = connection.execute(text, (*values, size - 1)).fetchone()
                if row is None or connection.execute(text, (*values, size + size // 2 - 1)).fetchone() is None:
                    return found
                last = row[0]
                found.append(last)

    def count_in(self, lower, upper):
        """How many objects have names in ``(lower, upper]``."""
        with self.reading() as connection:
            return connection.execute('SELECT count(*) FROM row WHERE deleted = 0 AND name > ?'      # noqa: S608
                                      + (' AND name <= ?' if upper else ''), (lower, upper) if upper else (lower,)).fetchone()[0]

    def drop(self, rows):
        """Let go of rows (as of :meth:`later`) that are elsewhere now; one that has changed since stays."""
        with self.writing() as connection:
            digest, count, objects, size = connection.execute('SELECT digest, count, objects, bytes FROM info').fetchone()
            for row in rows:
                done = connection.execute('DELETE FROM row WHERE deleted = ? AND name = ? AND seq = ?', (row[0], row[1], row[-1]))
                if done.rowcount and not row[0]:
                    digest ^= self._mark(row[:-1])
                    one, two = self.weight(row)
                    count, objects, size = count - 1, objects - one, size - two
            connection.execute('UPDATE info SET digest = ?, count = ?, objects = ?, bytes = ?', (digest, count, objects, size))

    def drop_all(self, seq):
        """Let go of all rows, if none changed after ``seq``. Returns whether it was so."""
        with self.writing() as connection:
            if connection.execute('SELECT seq FROM info').fetchone()[0] != seq:
                return False
            connection.execute('DELETE FROM row')
            connection.execute('UPDATE info SET digest = 0, count = 0, objects = 0, bytes = 0')
        with contextlib.suppress(sqlite3.OperationalError), self.reading() as connection:     # (others read it: later, then)
            connection.execute('VACUUM')
        return True

    def settle(self):
        """Have what was written on the disk."""
        with self.reading() as connection:
            connection.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchall()

    def reclaim(self, before):
        """As of all; and ranges that were deleted before a timestamp."""
        super().reclaim(before)
        with self.changing() as table:
            table.ranges = {name: found for name, found in table.ranges.items() if not found.deleted or found.stamp >= before
                            or name == table.key}


def read_message(message):
    """``(own, previous, ranges)`` of what a fellow told."""
    return Range.of(message['own']), message['previous'], [Range.of(each) for each in message['ranges']]


class Busy(Exception):
    """Rows have changed meanwhile."""


def cut(key, root, uppers, own, stamp):
    """New ranges of a container, between bounds.

    :param key: its own name. :param root: ``(account, container)`` of its root. :param uppers: upper bounds but the last.
    """
    digest = hashlib.md5(key.encode('utf-8', 'surrogateescape'), usedforsecurity=False).hexdigest()
    lowers = [own.lower, *uppers]
    return [Range(f'{PREFIX}{root[0]}/{root[1]}-{digest}-{stamp}-{number}', stamp, lower, upper, state=FOUND, state_stamp=stamp)
            for number, (lower, upper) in enumerate(zip(lowers, [*uppers, own.upper], strict=True))]


def begin(table, ranges, stamp, state=SHARDING):
    """A container is to be cut up into these ranges: nothing moves yet. False if it is cut up already."""
    if state_of_own(table.own) in ('sharding', 'sharded'):
        return False
    table.previous = table.own.epoch
    table.ranges = {table.key: table.own._replace(state=state, state_stamp=stamp, epoch=stamp)}
    table.context = None
    table.merge(ranges)
    return True
