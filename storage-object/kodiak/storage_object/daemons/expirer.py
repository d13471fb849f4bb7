"""The expirer: deletes objects whose time has come.

Object servers queue them in the account ``.expiring_objects``: a container a day, an entry
``<seconds>-<account>/<container>/<object>``.
"""
import time

from .inside import Later, Queues


class Expirer(Queues):
    """Deletes what has expired, and then its entry."""

    name = 'expirer'
    account = '.expiring_objects'
    span = 86400

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._policies = {}

    def due(self):
        """Queues up to now; in each pass the containers' policies are looked up anew."""
        self._policies = {}
        return {'end_marker': f'{int(time.time()) + 1:010d}'}

    def entry(self, queue, row, until):
        """Delete an object, unless it has another time now."""
        moment, _, path = row['name'].partition('-')
        if int(moment) > until:
            raise Later
        account, container, name = path.split('/', 2)
        if (account, container) not in self._policies:
            self._policies[account, container] = self.inside.policy(account, container)
        policy = self._policies[account, container]
        if policy is not None:
            status = self.inside.delete_object(account, container, name, policy, X_If_Delete_At=str(int(moment)))
            if status // 100 != 2 and status not in (404, 409, 412):
                self.progress.count('failed')
                return False
        self.progress.count('expired')
        return self.strike(queue, row['name'], f'{time.time():016.5f}')
