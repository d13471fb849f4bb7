"""The ring as proxies and servers read it.

The file is gzip: a line of magic, a line of JSON (``part_power``, ``replicas``, ``devices``: a list with None for ids that are
free, ``salt``: base64, ``version``), then for each replica an array of little-endian 16-bit device ids, one a partition. The
last replica's array is shorter where the number of replicas is a fraction.
"""
import array
import base64
import contextlib
import gzip
import hashlib
import json
import logging
import os
import shutil
import sys
import zlib

LOG = logging.getLogger(__name__)

MAGIC = b'kodiak-ring 1\n'


def write(path, table, devices, part_power, salt, version):
    """Write a ring file; readers see the old one or the new one."""
    head = {'part_power': part_power, 'replicas': len(table), 'devices': devices, 'version': version,
            'salt': base64.b64encode(salt).decode()}
    part = f'{path}.{os.getpid()}'
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), 'wb') as raw:
        with gzip.GzipFile(filename='', mode='wb', fileobj=raw, mtime=0) as file:
            file.write(MAGIC + json.dumps(head, sort_keys=True).encode() + b'\n')
            for row in table:
                file.write(_little(array.array('H', row)).tobytes())
        raw.flush()
        os.fsync(raw.fileno())
    os.rename(part, path)


def _keep(path, copy):
    with contextlib.suppress(OSError):
        part = f'{copy}.{os.getpid()}'
        shutil.copyfile(path, part)
        os.rename(part, copy)


def _little(row):
    if sys.byteorder == 'big':
        row.byteswap()
    return row


BROKEN = (OSError, ValueError, EOFError, KeyError, IndexError, zlib.error)


class Ring:
    """A ring file, read again when it changes. A file that breaks leaves the ring as it was.

    :param keep: folder where a copy of the last good ring is kept, for a start at which the file is broken.
    :raises ValueError: the file is no ring, and there is no copy.
    """

    def __init__(self, path, keep=None):
        self.path = path
        self._stamp = None
        self._copy = os.path.join(keep, os.path.basename(path)) if keep else None
        try:
            self._read(path)
        except BROKEN as error:
            if self._copy is None or not os.path.exists(self._copy):
                raise ValueError(f'{path} is no ring: {error}') from error
            LOG.error('%s is no ring (%s); the last good one is used until it is', path, error)
            self._read(self._copy)

    def _read(self, path):
        status = os.stat(path)
        with gzip.open(path) as file:
            if file.readline() != MAGIC:
                raise ValueError('it begins with something else')
            head = json.loads(file.readline())
            parts, table = 1 << head['part_power'], []
            for _ in range(head['replicas']):
                row = array.array('H')
                row.frombytes(file.read(2 * parts))
                table.append(_little(row))
            if file.read(1) or not table or any(len(row) != parts for row in table[:-1]) or not table[-1]:
                raise ValueError('its table has another length')
        salt = base64.b64decode(head['salt'])
        self.devices, self.part_power, self.version = head['devices'], head['part_power'], head['version']
        self._shift, self._salt, self._table, self._handoffs = 32 - head['part_power'], salt, table, {}
        if path == self.path:
            self._stamp = status.st_mtime_ns, status.st_ino
            if self._copy is not None:
                _keep(path, self._copy)

    def reload_if_changed(self):
        """True if there was a newer file, which holds from now on."""
        try:
            status = os.stat(self.path)
            if (status.st_mtime_ns, status.st_ino) == self._stamp:
                return False
            self._read(self.path)
            return True
        except BROKEN:
            return False

    @property
    def replica_count(self):
        """Replicas of a partition, a fraction's counted whole."""
        return len(self._table)

    def hash_path(self, account, container=None, obj=None):
        """The 32 hexadecimal digits that stand for a name, and for nothing else's, on disk."""
        path = '/'.join(part for part in ('', account, container, obj) if part is not None)
        return hashlib.md5(self._salt + path.encode('utf-8', 'surrogateescape') + self._salt, usedforsecurity=False).hexdigest()

    def get_part(self, account, container=None, obj=None):
        """The partition of a name."""
        return int(self.hash_path(account, container, obj)[:8], 16) >> self._shift

    def primaries(self, part):
        """The devices that hold a partition."""
        return [self.devices[row[part]] for row in self._table if part < len(row)]

    def handoffs(self, part):
        """All other devices, the farthest from the primaries first, in an order of the partition's own."""
        known = self._handoffs.get(part)
        if known is None:
            if len(self._handoffs) > 4096:
                self._handoffs = {}
            known = self._handoffs[part] = self._order(part)
        return iter(known)

    def _order(self, part):
        held = self.primaries(part)
        ids = {device['id'] for device in held}
        regions = {device['region'] for device in held}
        zones = {(device['region'], device['zone']) for device in held}
        hosts = {device['ip'] for device in held}

        def order(device):
            near = ((device['region'] in regions) + ((device['region'], device['zone']) in zones) + (device['ip'] in hosts))
            return near, hashlib.md5(b'%d-%d' % (part, device['id']), usedforsecurity=False).digest()
        return sorted((device for device in self.devices if device is not None and device['weight'] > 0
                       and device['id'] not in ids), key=order)
