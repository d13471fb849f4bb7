"""The updater: rows that container servers did not take, and counts that accounts have not been told."""
import logging
import os

import orjson

from ..backend.broker import Corrupt
from ..backend.trees import databases
from ..backend.updates import PENDING
from .care import Daemon

LOG = logging.getLogger(__name__)


class Updater(Daemon):
    """Sends again what stands in ``async_pending``; every tenth pass looks at all containers."""

    name = 'updater'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._passes = 0

    def once(self):
        """A pass."""
        for device in self.server.devices.names():
            self._rows(f'{self.server.devices.root}/{device}')
        if self._passes % 10 == 0:
            for device in self.server.devices.names():
                self._containers(f'{self.server.devices.root}/{device}')
        self._passes += 1

    def _rows(self, device):
        top, found = f'{device}/{PENDING}', []
        if os.path.isdir(top):
            for suffix in os.listdir(top):
                found += [f'{top}/{suffix}/{name}' for name in os.listdir(f'{top}/{suffix}')]
        dropped = self.before()
        for path in self.fresh(sorted(found)):
            try:
                with open(path, 'rb') as file:
                    body = orjson.loads(file.read())
                row = tuple(body['row'])
                if self.server.updater.send_row(body['account'], body['container'], row):
                    os.unlink(path)
                    self.progress.count('sent')
                elif max(row[2], row[3]) < dropped:
                    # Its container has been gone for longer than any peer may be away.
                    os.unlink(path)
                    self.progress.count('dropped')
                else:
                    self.progress.count('kept')
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError) as error:
                LOG.error('%s is no update (%s)', path, error)
                os.unlink(path)

    def _containers(self, device):
        for _, _, path in self.fresh(list(databases(device, 'container')), device):
            try:
                self.progress.count('told' if self.server.updater.report(path) else 'untold')
            except Corrupt as error:
                self.server.brokers.damaged('container', path, error)
