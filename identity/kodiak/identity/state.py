"""What a process remembers of the database, and how it knows that it still holds.

Table ``versions`` has a few numbers that grow with each change of what is remembered. Every request reads them (one
small query) before it relies on memory, so a change made through another process is seen by the very next request.
"""
import collections
import time

import sqlalchemy as sa

from kodiak.common import authtoken, tokens

from . import catalog, changes, times
from .models import revocations, versions

#: As text: it is asked at every request, and a statement object costs twice as much.
_VERSIONS = str(sa.select(versions.c.name, versions.c.value))


class State(authtoken.Feed):
    """The memory of a process, which is identity's own token feed as well.

    ``resources`` and ``assignments`` are dictionaries that start empty when what they hold has changed: whoever computes
    an entry takes the dictionary first, so an entry that is computed too late lands in one that nobody reads.
    """

    LIMIT = 20000

    def __init__(self, database, keys):
        super().__init__(None, interval=None)
        self.db = database
        self.ring = keys
        self.events = []
        self.resources = {}
        self.assignments = {}
        self.versions = {}
        self.catalog_version = -1
        self.texts = catalog.Texts([])
        self.tokens = collections.OrderedDict()
        self._ring_seen = None
        #: signing keys that were revoked, here or on another server
        self.revoked_keys = set()

    def ready(self):
        """See what has changed; called by the middleware at each request that carries a token."""
        self.look()

    def refresh(self):
        """As :meth:`ready`."""
        self.look()

    def look(self):
        """Compare the numbers of the database with those remembered, and forget what is out of date."""
        with self.db.read() as connection:
            found = dict(connection.exec_driver_sql(_VERSIONS).all())
            public = self.ring.public()
            if found != self.versions or public is not self._ring_seen:
                self._take(connection, found, public)
        self.seen = time.monotonic()

    def _take(self, connection, found, public):
        with self._lock:
            if public is not self._ring_seen:
                self.keys = {key_id: (text, tokens.load_public(text)) for key_id, text in public.items()}
                self._ring_seen = public
                self.version += 1
            newer = {name for name, value in found.items() if value > self.versions.get(name, -1)}
            if changes.RESOURCE in newer:
                self.resources = {}
            if changes.ASSIGNMENT in newer:
                self.assignments = {}
            if changes.CATALOG in newer:
                self.catalog, self.catalog_version = catalog.build(connection), found[changes.CATALOG]
                self.texts = catalog.Texts(self.catalog, catalog.filtering(connection), catalog.providers(connection))
            if changes.REVOCATION in newer:
                self._take_events(connection)
            self.versions = {name: max(value, self.versions.get(name, -1)) for name, value in found.items()}

    def _take_events(self, connection):
        rows = connection.execute(sa.select(revocations.c.sequence, revocations.c.event, revocations.c.expires_at)
                                  .where(revocations.c.sequence > self.sequence).order_by(revocations.c.sequence)).all()
        for row in rows:
            self.events.append({**row.event, 'id': row.sequence, 'expires_at': times.seconds(row.expires_at)})
            self.revocations.add(self.events[-1])
            if row.event.get('key_id'):
                self.revoked_keys.add(row.event['key_id'])
            self.sequence = row.sequence
        if rows:
            self.version += 1

    def prune(self):
        """Forget events that no token can be covered by any more."""
        now = time.time()
        with self._lock:
            self.events = [event for event in self.events if event['expires_at'] > now]
            self.revocations.prune(now)

    def remember(self, cache, key, value):
        """Put an entry into one of the dictionaries, which start anew when they are full."""
        if len(cache) >= self.LIMIT:
            cache.clear()
        cache[key] = value
        return value

    def claims(self, text, allow_expired=0):
        """The claims of a token that is signed, not expired and not revoked, or None. Looks at memory only.

        :param allow_expired: seconds after its end that it still counts.
        """
        now = time.time()
        entry = self.tokens.get(text)
        if entry is None or entry[1] != self.version:
            try:
                claims = tokens.verify(text, self.public_keys(), now=now - allow_expired)
            except tokens.InvalidToken:
                return None
            if self.revocations.covers(claims, text.split('.', 2)[1]):
                return None
            entry = self.tokens[text] = (claims, self.version)
            if len(self.tokens) > 5000:
                self.tokens.popitem(last=False)
        return entry[0] if entry[0].expires > now - allow_expired else None

    def answer(self, since, catalog_version=None):
        """The feed that other services poll; see :class:`kodiak.common.authtoken.Feed`."""
        if since > self.sequence:
            # The caller knows a newer past than we have: the database was restored. Start over.
            since = 0
        events = [event for event in self.events if event['id'] > since] if since < self.sequence else []
        found = {'keys': [{'id': key_id, 'public': text} for key_id, (text, _) in self.keys.items()],
                 'events': events, 'sequence': self.sequence, 'catalog_version': self.catalog_version}
        if catalog_version != self.catalog_version:
            found['catalog'] = self.catalog
        return found

