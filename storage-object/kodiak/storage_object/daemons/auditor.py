"""The auditor: reads everything again, slowly, the longest unread first, and puts away what is not what was written."""
import logging
import os
import time

from ..backend import diskfile, fragments, held
from ..backend.broker import Corrupt
from ..backend.replication import check
from ..backend.trees import Trees, databases, hash_folders, names_in
from ..erasure import Damaged
from .care import Daemon, State

LOG = logging.getLogger(__name__)


class Auditor(Daemon):
    """Objects by their checksums, databases by SQLite's own check; marks of deletions that are old enough are reclaimed."""

    name = 'auditor'
    EVERY = 120

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._until = 0.0

    def once(self):
        """A pass over all devices. A pass that was cut off goes on where it was."""
        for device in self.server.devices.names():
            path = f'{self.server.devices.root}/{device}'
            if removed := self.server.devices.clean(path):
                self.progress.count('temporary', removed)       # of a process that was killed
            state = State(f'{path}/auditor.json')
            for policy in self.server.policies:
                parts = [(policy, part) for part in Trees.parts(path, policy)]
                for _, part in self.fresh(state.oldest_first(parts)):
                    self._partition(path, device, policy, part)
                    state.seen((policy, part))
            for kind in ('account', 'container'):
                for _, _, file in self.fresh(list(databases(path, kind)), f'{device} {kind}'):
                    self._database(kind, file)
            state.save()

    def _pace(self, size):
        """Wait so that no more than so many bytes a second are read."""
        now = time.monotonic()
        self._until = max(self._until, now) + (size + 4096) / self.conf.storage.audit_rate
        if self._until - now > 0.1:
            self.ending.wait(self._until - now)

    def _partition(self, path, device, policy, part):
        top, before = f'{path}/{diskfile.folder_of(policy)}/{part}', self.before()
        for suffix in sorted(names_in(top)):
            for digest in names_in(f'{top}/{suffix}'):
                if held.reclaim(f'{top}/{suffix}/{digest}'):
                    self.progress.count('reclaimed')
            for digest, names in hash_folders(f'{top}/{suffix}').items():
                if self.ending.is_set():
                    return
                folder = f'{top}/{suffix}/{digest}'
                names = fragments.reclaim(folder, names, before)
                if not names:
                    continue
                if names[-1].endswith('.ts') and names[-1][:-3] < before:
                    diskfile.tidy(folder, before)
                    self.progress.count('reclaimed')
                elif not self._object(folder, names, policy, digest) and (
                        diskfile.quarantine(path, folder, diskfile.folder_of(policy)) is not None):
                    self.progress.count('quarantined')
                    self.server.damaged_object(device, policy, part, suffix)

    def _object(self, folder, names, policy, digest):
        """Whether an object is whole."""
        for name in names:
            try:
                with open(f'{folder}/{name}', 'rb') as file:
                    size = os.fstat(file.fileno()).st_size
                    self._pace(size)
                    metadata = check(file.fileno())
                    if 'Ec' in metadata and (codec := self.server.rings.codec(policy)) is not None:
                        fragments.check(file.fileno(), metadata['Ec'], codec)
                    self.progress.count('bytes', size)
                parts = metadata.get('name', '').split('/', 3)
                if len(parts) != 4 or self.server.digest('object', *parts[1:], policy=policy) != digest:
                    raise diskfile.Corrupt('it is of another name')
            except FileNotFoundError:
                return True                 # changed meanwhile
            except (diskfile.Corrupt, Damaged, ValueError) as error:
                if not os.path.exists(f'{folder}/{name}'):
                    return True
                LOG.error('%s/%s is damaged: %s', folder, name, error)
                return False
        self.progress.count('objects')
        return True

    def _database(self, kind, file):
        try:
            self._pace(os.path.getsize(file))
        except FileNotFoundError:
            return
        broker = self.server.brokers.get(kind, file)
        if broker is None:
            return
        try:
            broker.check()
            broker.reclaim(self.before())
            self.progress.count('databases')
        except Corrupt as error:
            self.server.brokers.damaged(kind, file, error)
            self.progress.count('quarantined')
