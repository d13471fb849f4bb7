"""Volumes as thin logical volumes of LVM: snapshots and clones share blocks with what they were made of.

The devices must be open to the agent's user, whom the exporters run as; a rule of udev sees to it::

    ENV{DM_VG_NAME}=="volumes", OWNER="kodiak-storage-block", MODE="0600"
"""
import json
import logging
import os

from kodiak.storage_block.drivers import base

LOG = logging.getLogger(__name__)
FIELDS = 'lv_name,lv_size,pool_lv,data_percent,lv_attr'
SPACE = ('insufficient free space', 'out of data space', 'exceeds the size of thin pool')


class LvmDriver(base.Driver):
    """The driver ``lvm``. Its section: ``location``, volume group/thin pool."""

    needs_root = True
    #: Where LVM puts the devices.
    devices = '/dev'

    def __init__(self, name, options):
        super().__init__(name, options)
        self.group, _, self.pool = options.location.partition('/')

    @staticmethod
    def _lvm(command, *args):
        from kodiak.storage_block.drivers import root
        return root.lvm(command, *args)

    def _run(self, command, *args):
        status, printed, complaint = self._lvm(command, *args)
        if status:
            LOG.warning('%s %s: %s', command, ' '.join(args), complaint.strip())
            if any(words in complaint.lower() for words in SPACE):
                raise base.Fault('no-space', 'The back end has no space left.')
            raise base.Fault('back-end', f'{command} failed on the back end {self.name}.')
        return printed

    def _all(self):
        """``{name: row}`` of what is in the volume group."""
        printed = self._run('lvs', '--reportformat', 'json', '--units', 'b', '--nosuffix', '-o', FIELDS, self.group)
        return {row['lv_name']: row for row in json.loads(printed)['report'][0]['lv']}

    def _thin(self):
        return {_name(own): int(row['lv_size']) for own, row in self._all().items() if row['pool_lv'] == self.pool}

    def start(self):
        row = self._all().get(self.pool)
        if row is None or not row['lv_attr'].startswith('t'):
            raise base.Fault('back-end', f'There is no thin pool {self.options.location}.')
        for name in self._thin():
            if name.endswith(base.PART) and base.NAME.match(name) and self.size(name.removesuffix(base.PART)) is not None:
                self.delete(name)

    def stats(self):
        found = self._all()
        pool = found[self.pool]
        total = int(pool['lv_size'])
        return base.Stats(
            total=total, free=int(total * (1 - float(pool['data_percent'] or 0) / 100)), clones='native',
            provisioned=sum(int(row['lv_size']) for row in found.values() if row['pool_lv'] == self.pool))

    def size(self, name):
        return self._thin().get(name)

    def create(self, name, size):
        if self.size(name) is None:
            self._run('lvcreate', '-q', '-n', _own(name), '-V', f'{size}b', '--thinpool', self.pool, self.group)

    def delete(self, name):
        if self.size(name) is not None:
            self._run('lvremove', '-q', '-f', self._full(name))

    def rename(self, old, new):
        there = self._thin()
        if old in there:
            self._run('lvrename', '-q', self.group, _own(old), _own(new))
        elif new not in there:
            raise self._missing(old)

    def extend(self, name, size):
        if self._existing(name) < size:
            self._run('lvextend', '-q', '-L', f'{size}b', self._full(name))

    def snapshot(self, snapshot, volume):
        self._existing(volume)
        if self.size(snapshot) is None:
            self._fork(volume, snapshot)

    def delete_snapshot(self, snapshot, volume):
        self.delete(snapshot)

    def clone(self, source, name, size):
        if self.size(name) is None:
            self._existing(source)
            half = base.part(name)
            self.delete(half)
            self._fork(source, half)
            self.extend(half, size)
            self.rename(half, name)

    def revert(self, volume, snapshot):
        there, half = self._thin(), base.part(volume)
        if volume in there:
            self._existing(snapshot)
            self.delete(half)
            self._fork(snapshot, half)
            self.extend(half, there[volume])
            self.delete(volume)
        self.rename(half, volume)

    def open(self, name):
        self._existing(name)
        return base.Node.of_path(os.path.join(self.devices, self._full(name)), device=True)

    def listing(self):
        return [(name, size) for name, size in self._thin().items()
                if not name.startswith('snapshot-') and not name.endswith(base.PART)]

    def _fork(self, source, name):
        """A snapshot in LVM's sense: writable, active, and active again after a reboot."""
        self._run('lvcreate', '-q', '-s', '-k', 'n', '-a', 'y', '-n', _own(name), self._full(source))

    def _existing(self, name):
        size = self.size(name)
        if size is None:
            raise self._missing(name)
        return size

    def _full(self, name):
        return f'{self.group}/{_own(name)}'


def _own(name):
    """LVM keeps names that begin with ``snapshot`` for itself."""
    return '_' + name if name.startswith('snapshot') else name


def _name(own):
    return own.removeprefix('_')
