"""Objects that were written in another storage policy than their container's, as its database knows them.

While the servers of a container do not reach each other it may be made in two policies. When they do again, one policy holds (that
of who was made, or made again, last), and what was written in the other has to be moved. The table ``stray`` has what was heard of:
rows of another policy, also of those that did not hold. It is this file's alone, and what is in the queue is removed from it.
"""
import contextlib
import sqlite3

from ..spans import PREFIX

TABLE = """
CREATE TABLE IF NOT EXISTS stray (
    name TEXT NOT NULL, policy INTEGER NOT NULL, stamp TEXT NOT NULL, deleted INTEGER NOT NULL,
    PRIMARY KEY (name, policy)) WITHOUT ROWID
"""


def _apart(account):
    """Whether the objects of an account are none that somebody reads. (Those of shards are their roots'.)"""
    return account.startswith('.') and not account.startswith(PREFIX)


def _has(account):
    """Whether containers of an account have objects of clients; those of our own have entries, but for shards."""
    return not account.startswith('.') or account.startswith(PREFIX)


class Strays:
    """Mixed into the :class:`~kodiak.storage_object.backend.broker.Broker` of containers."""

    def _note_strays(self, connection, rows, account, policy):
        """Rows have been heard of."""
        if _apart(account) or all(row[7] == policy for row in rows):
            return
        connection.execute(TABLE)
        for row in rows:
            if row[7] != policy:
                connection.execute('INSERT INTO stray VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET stamp = excluded.stamp, '
                                   'deleted = excluded.deleted WHERE excluded.stamp >= stamp', (row[1], row[7], row[2], row[0]))

    def _policy_changes(self, connection, info):
        """The container's policy is to be that of ``info``."""
        if _apart(info['account']):
            return
        select = 'FROM row WHERE policy != ? AND NOT (deleted = 1 AND stamp <= ?)'
        values = info['policy'], info['delete_stamp']
        if connection.execute(f'SELECT 1 {select} LIMIT 1', values).fetchone():
            connection.execute(TABLE)
            connection.execute(f'INSERT OR REPLACE INTO stray SELECT name, policy, stamp, deleted {select}', values)

    def strays(self, limit=1000):
        """``[(name, policy, timestamp, whether it was deleted)]``."""
        with self.reading() as connection, contextlib.suppress(sqlite3.OperationalError):        # (it has none: no table)
            return connection.execute('SELECT name, policy, stamp, deleted FROM stray LIMIT ?', (limit,)).fetchall()
        return []

    def forget_strays(self, strays):
        """They are in the queue."""
        with self.writing() as connection:
            connection.executemany('DELETE FROM stray WHERE name = ? AND policy = ? AND stamp = ? AND deleted = ?', strays)
