"""The reaper: takes away what was in an account that was deleted."""
import logging

from ..backend.broker import Corrupt
from ..backend.trees import databases, state_of
from .care import Daemon
from .inside import Inside, Unknown

LOG = logging.getLogger(__name__)


class Reaper(Daemon):
    """Deletes the objects, then the containers, of deleted accounts that this node is the first to hold."""

    name = 'reaper'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self.inside = Inside(server)
        self._seen, self._waited = {}, {}

    def once(self):
        """A pass over the accounts here."""
        for device in self.server.devices.names():
            for part, _, file in self.fresh(list(databases(f'{self.server.devices.root}/{device}', 'account')), device):
                try:
                    self._account(int(part), file)
                except Corrupt as error:
                    self.server.brokers.damaged('account', file, error)
                except Unknown as error:
                    LOG.info('An account is not reaped now: %s', error)

    def _account(self, part, file):
        stamp = state_of(file)
        if stamp is None or self._seen.get(file) == stamp:
            return
        broker = self.server.brokers.get('account', file)
        info = broker.info() if broker is not None else None
        if info is None or info['status'] != 'DELETED' or info['delete_stamp'] <= info['put_stamp']:
            self._seen[file] = stamp
            return
        rank = self.inside.rank(self.server.rings.account, part)
        waited = self._waited[file] = self._waited.get(file, 0) + 1
        if rank is None or waited <= 3 * rank:
            return          # the node of the first replica does it; this one does if that has not for some passes
        left = False
        for name, _ in broker.listing(('name', 'policy'), 10000):
            if self.ending.is_set():
                return
            left |= not self._container(info['account'], name)
        if not left:
            self._seen[file] = stamp
            self._waited.pop(file, None)
            self.progress.count('reaped')

    def _container(self, account, container):
        """True if it is gone."""
        while found := self.inside.rows(account, container, limit='1000'):
            page, headers = found
            if not page:
                break
            policy = int(headers.get('X-Backend-Storage-Policy-Index', '0'))
            for row in page:
                if self.ending.is_set():
                    return False
                status = self.inside.delete_object(account, container, row['name'], policy)
                if status // 100 != 2 and status != 404:
                    self.progress.count('failed')
                    return False
                self.progress.count('objects')
        self.progress.count('containers')
        return self.inside.delete_container(account, container) in (202, 204, 404)
