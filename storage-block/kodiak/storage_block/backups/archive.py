"""The form of a backup: blocks of a volume, each kept once.

A backup is a container's objects ``backup-<id>/data-00001`` ... and ``backup-<id>/index``. A data object holds compressed
blocks one after the other; the index says for each block of the volume where it lies, with the sum of its content, or
null for zeros::

    {"version": 1, "length": bytes, "block": bytes, "prefixes": ["backup-<id>", ...],
     "blocks": [[sha256, which of prefixes, number of the object, offset, length] or null, ...]}

An incremental one keeps the blocks that its parent has not; its index points into the objects of its ancestors for
the others, so that it alone is needed to restore. Both ways the memory used does not depend on the volume's size but for
the index.
"""
import hashlib
import json
import os
import zlib

from kodiak.storage_block import sparse, ticket
from kodiak.storage_block.drivers.base import Fault

VERSION = 1
BLOCK = 4 << 20
OBJECT = 32 << 20
INDEX = 'index'


def prefix(backup_id):
    """What the objects of a backup begin with."""
    return f'backup-{backup_id}'


def create(store, container, backup_id, fd, length, parent=None, about=None):
    """Keep ``length`` bytes of the open file ``fd``.

    :param parent: the record of the backup that this one builds on.
    :param about: what the record's ``metadata`` is to hold besides.
    :returns: its record (``kodiak.storage_block.rpc``).
    """
    old, mine = None, prefix(backup_id)
    if parent is not None:
        old = read_index(store, parent)
        if old['block'] != BLOCK:
            parent = old = None
    store.prepare(container)
    prefixes = [mine, *(old['prefixes'] if old else [])]
    writer = _Writer(store, container, mine)
    blocks, data = [], _data_blocks(fd, length)
    count = -(-length // BLOCK)
    for number in range(count):
        ticket.check(number, count)
        block = os.pread(fd, min(BLOCK, length - number * BLOCK), number * BLOCK) if number in data else b''
        if not block.strip(b'\0'):
            blocks.append(None)
            continue
        known = old['blocks'][number] if old and number < len(old['blocks']) else None
        digest = hashlib.sha256(block).hexdigest()
        if known is not None and known[0] == digest:
            blocks.append([digest, known[1] + 1, *known[2:]])
        else:
            blocks.append([digest, 0, *writer.add(zlib.compress(block, 1))])
    writer.flush()
    index = {'version': VERSION, 'length': length, 'block': BLOCK, 'prefixes': prefixes, 'blocks': blocks}
    packed = zlib.compress(json.dumps(index, separators=(',', ':')).encode())
    store.put(container, f'{mine}/{INDEX}', packed)
    return {'service': store.name, 'container': container, 'prefix': mine, 'object_count': writer.number + 1,
            'size': writer.size + len(packed), 'metadata': {**(about or {}), 'version': VERSION, 'length': length}}


def _data_blocks(fd, length):
    """The numbers of the blocks that aren't holes."""
    return {number for start, size in sparse.extents(fd, length)
            for number in range(start // BLOCK, -(-(start + size) // BLOCK))}


class _Writer:
    """Collects blocks into objects."""

    def __init__(self, store, container, mine):
        self.store, self.container, self.mine = store, container, mine
        self.number, self.size, self._pieces, self._length = 0, 0, [], 0

    def add(self, packed):
        """Returns (number of the object, offset, length)."""
        if self._length + len(packed) > OBJECT:
            self.flush()
        place = (self.number + 1, self._length, len(packed))
        self._pieces.append(packed)
        self._length += len(packed)
        return place

    def flush(self):
        if self._pieces:
            self.number += 1
            self.store.put(self.container, _object(self.mine, self.number), b''.join(self._pieces))
            self.size += self._length
            self._pieces, self._length = [], 0


def _object(mine, number):
    return f'{mine}/data-{number:05d}'


def read_index(store, record):
    """The index of a backup. :raises Fault: ``backup``, where it is not one that this release reads."""
    if record.get('service') != store.name:
        raise Fault('backup', f'The backup is kept by {record.get("service")!r}, and this host has {store.name!r} only.',
                    final=True)
    try:
        index = json.loads(zlib.decompress(store.get(record['container'], f'{record["prefix"]}/{INDEX}')))
        if index['version'] != VERSION:
            raise ValueError('its version is not known')
    except (ValueError, KeyError, zlib.error):
        raise Fault('backup', 'The index of the backup is damaged, or of another release.', final=True)
    return index


def restore(store, record, fd):
    """Write what a backup holds into the open file ``fd``, which reads as zeros.

    :raises Fault: ``backup``, final where data is damaged or gone.
    """
    index = read_index(store, record)
    # Object by object, so that each is fetched once.
    places = {}
    for number, block in enumerate(index['blocks']):
        if block is not None:
            digest, which, object_number, offset, length = block
            places.setdefault((index['prefixes'][which], object_number), []).append((offset, length, digest, number))
    for done, ((mine, object_number), wanted) in enumerate(sorted(places.items())):
        ticket.check(done, len(places))
        data = store.get(record['container'], _object(mine, object_number))
        for offset, length, digest, number in sorted(wanted):
            try:
                block = zlib.decompressobj().decompress(data[offset:offset + length], index['block'])
            except zlib.error:
                block = b''
            if hashlib.sha256(block).hexdigest() != digest:
                raise Fault('backup', 'The data of the backup is damaged.', final=True)
            sparse.write_at(fd, block, number * index['block'])


def delete(store, container, backup_id):
    """Forget all of a backup, whole or not. The index goes first: what is left is found by its name."""
    mine = prefix(backup_id) + '/'
    for name in sorted(store.names(container, mine), key=lambda name: not name.endswith('/' + INDEX)):
        store.delete(container, name)
