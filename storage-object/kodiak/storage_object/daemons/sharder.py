"""The sharder: cuts large containers up into shards, and lets small shards give their rows to a neighbour.

What it does with each is in :mod:`~kodiak.storage_object.daemons.cleaving`. Whatever it has done stands in the databases: where it
was broken off it goes on.
"""
import collections
import logging
import sqlite3

from ..backend.broker import Corrupt
from ..backend.trees import databases, state_of
from .cleaving import Cleaving
from .peers import Asking, Failed

LOG = logging.getLogger(__name__)


class Sharder(Asking):
    """Visits the containers here."""

    name = 'sharder'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._seen, self._waited = {}, collections.Counter()
        self.told = {}              # the ranges (their digest) that all fellows have, by file
        self.again = False          # rows are left to be copied: another pass follows at once

    def note(self, key, done, total):
        """A container is being cut up."""
        self.progress.details[key] = {'done': done, 'left': max(0, total - done)}

    def once(self):
        """A pass over the containers here."""
        self.again = False
        for device in self.server.devices.names():
            for part, digest, file in self.fresh(
                    list(databases(f'{self.server.devices.root}/{device}', 'container')), device):
                try:
                    self._visit(device, part, digest, file)
                except Corrupt as error:
                    self.server.brokers.damaged('container', file, error)
                except (Failed, sqlite3.OperationalError, OSError) as error:
                    LOG.info('%s is left for the next pass: %s', file, error)
                    self.progress.count('postponed')
                except Exception:
                    LOG.exception('%s is left for the next pass', file)
                    self.progress.count('failed')
        if self.again:
            self.nudge()

    def _visit(self, device, part, digest, file):
        stamp = state_of(file)
        if stamp is None or self._seen.get(file) == stamp:
            return
        ring = self.server.rings.container
        primaries = ring.primaries(int(part)) if int(part) < 1 << ring.part_power else []
        place, node = next(((place, node) for place, node in enumerate(primaries) if self.mine(node, device)), (None, None))
        broker = self.server.brokers.get('container', file)
        if node is None or broker is None:
            return              # the replicator takes it to those that are to hold it
        info = broker.info()
        # The first of its devices does what one alone does; another where that has not for some passes.
        situation = (file, info['sharding'], info['shards'])
        self._waited[situation] += 1
        turn = self._waited[situation] > 3 * place
        if len(self._waited) > 100_000:
            self._waited.clear()
        if Cleaving(self, broker, part, digest, file, node, turn).run():
            self._seen[file] = stamp
