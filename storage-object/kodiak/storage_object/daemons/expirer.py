"""The expirer: deletes objects whose time has come.

Object servers queue them in the account ``.expiring_objects``: a container a day, an entry
``<seconds>-<account>/<container>/<object>``. The node of a queue's first replica works on it; the others begin later, in case it is
out.
"""
import logging
import time

from ..backend.containers import deletion
from .care import Daemon
from .inside import Inside, Unknown

LOG = logging.getLogger(__name__)
ACCOUNT = '.expiring_objects'
DAY = 86400


class Expirer(Daemon):
    """Deletes what has expired, and then its entry."""

    name = 'expirer'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self.inside = Inside(server)

    def once(self):
        """A pass over the queues up to now."""
        try:
            queues = self.inside.rows(ACCOUNT, limit='10000', end_marker=f'{int(time.time()) + 1:010d}')
        except Unknown:
            return
        ring = self.server.rings.container
        for queue in self.fresh([row['name'] for row in queues[0]] if queues else []):
            rank = self.inside.rank(ring, ring.get_part(ACCOUNT, queue))
            if rank is not None:
                try:
                    self._queue(queue, int(time.time()) - 2 * rank * self.conf.storage.interval)
                except Unknown as error:
                    LOG.info('The queue %s has to wait: %s', queue, error)

    def _queue(self, queue, until):
        marker, policies, left = '', {}, False
        while page := (self.inside.rows(ACCOUNT, queue, limit='1000', marker=marker) or ([],))[0]:
            for row in page:
                marker = row['name']
                moment, _, path = marker.partition('-')
                if self.ending.is_set() or int(moment) > until:
                    return
                left |= not self._entry(queue, marker, moment, path, policies)
        if not left and int(queue) < time.time() - 2 * DAY:
            self.inside.delete_container(ACCOUNT, queue)

    def _entry(self, queue, entry, moment, path, policies):
        account, container, name = path.split('/', 2)
        if (account, container) not in policies:
            policies[account, container] = self.inside.policy(account, container)
        policy = policies[account, container]
        if policy is not None:
            status = self.inside.delete_object(account, container, name, policy, X_If_Delete_At=str(int(moment)))
            if status // 100 != 2 and status not in (404, 409, 412):
                self.progress.count('failed')
                return False
        self.progress.count('expired')
        now = f'{time.time():016.5f}'
        return self.server.updater.send_row(ACCOUNT, queue, deletion(entry, now, 0))
