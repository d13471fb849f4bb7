"""The reconstructor: of policies with an erasure code, what the replicator is for the others.

Each device sees to its own: it asks the other devices of its partitions what they have, and calculates the fragments that it lacks
out of theirs, makes durable what is durable elsewhere, and fetches marks of deletions and metadata. What it has of fragments that
another device is to have goes there.
"""
import collections
import contextlib
import hashlib
import json
import logging
import os
import time

from ..backend import diskfile, fragments
from ..backend.devices import Out
from ..backend.diskfile import Writer
from ..backend.replication import old_among
from ..backend.trees import Trees, hash_folders
from ..erasure import Damaged
from ..proxy import backend as wire
from ..proxy.ec_get import Fragments
from .care import State
from .peers import Failed, Peers

LOG = logging.getLogger(__name__)
BATCH = 512
GRACE = 120             # seconds for which fragments that are not durable are left where the write put them


class Reconstructor(Peers):
    """See the module. A pass that was cut off goes on where it was."""

    name = 'reconstructor'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._places = {}

    def once(self):
        """A pass over all devices."""
        for device in self.server.devices.names():
            path = f'{self.server.devices.root}/{device}'
            for policy in self.server.policies:
                if self.server.rings.codec(policy) is not None:
                    self._device(path, device, policy)

    def _device(self, path, device, policy):
        ring = self.server.rings.object(policy)
        ring.reload_if_changed()
        for part in self.fresh(Trees.parts(path, policy), f'{device} {policy}'):
            if int(part) < 1 << ring.part_power:
                self._move(path, device, policy, int(part))
        state = State(f'{path}/reconstructor.json')
        places = state.oldest_first([(policy, part) for part in self._parts(ring, policy, device)])
        self.progress.total += len(places)
        for start in range(0, len(places), BATCH):
            if self.ending.is_set():
                break
            batch = places[start:start + BATCH]
            self._compare(path, device, policy, [part for _, part in batch])
            for place in batch:
                state.seen(place)
            self.progress.done += len(batch)
        if places:
            state.save()

    def _parts(self, ring, policy, device):
        """The partitions that a device is to hold something of."""
        known = self._places.get((policy, device))
        if known is None or known[0] != ring.version:
            found = [part for part in range(1 << ring.part_power) if any(self.mine(node, device) for node in ring.primaries(part))]
            known = self._places[policy, device] = ring.version, found
        return known[1]

    # What is another device's

    def _move(self, path, device, policy, part):
        home = self.server.home(device, policy, part)
        top = f'{path}/{diskfile.folder_of(policy)}/{part}'
        for suffix in self.server.replication.trees.strays(path, policy, part, home):
            if self.ending.is_set():
                return
            there = {}          # {node id: {hash: names}}
            for digest, names in hash_folders(f'{top}/{suffix}').items():
                for name in sorted(names, key=lambda name: name.endswith('.meta')):
                    if fragments.is_stray(name, home):
                        self._move_file(f'{top}/{suffix}/{digest}', policy, part, name, there)
            if home is None:
                self._remove_empty(f'{top}/{suffix}')
        if home is None:
            with contextlib.suppress(OSError):
                os.rmdir(top)

    def _move_file(self, folder, policy, part, name, there):
        codec, digest, suffix = self.server.rings.codec(policy), os.path.basename(folder), folder[-3:]
        number = None
        if '#' in name:
            stamp, number, durable = diskfile.fragment_of(name)
            if not durable and float(stamp[:16]) > time.time() - GRACE:
                return          # its proxy is about to come back to it
        for place, node in enumerate(self.server.rings.object(policy).primaries(part)):
            if number is not None and place % codec.count != number:
                continue
            try:
                if node['id'] not in there:
                    there[node['id']] = self.ask(node, 'suffixes', policy, part, body=[suffix]) or {}
                if not old_among(there[node['id']].get(digest, []), name):
                    self.send(node, f'{folder}/{name}', policy, part, digest, name)
            except FileNotFoundError:
                return
            except diskfile.Corrupt as error:
                LOG.error('%s/%s is damaged: %s', folder, name, error)
                break           # the others have enough to make it anew
            except Failed as error:
                self._could_not(node, error)
                return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f'{folder}/{name}')
        diskfile.tidy(folder)
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        self.progress.count('moved')

    # What is missing

    def _compare(self, path, device, policy, parts):
        """Ask the other devices of partitions what they have; get what is missing here."""
        ring, wanted = self.server.rings.object(policy), collections.defaultdict(set)
        mine = {part: self.server.replication.trees.partition(path, policy, part, self.server.home(device, policy, part))
                for part in parts}
        asked = collections.defaultdict(dict)
        nodes = {}
        for part in parts:
            for node in ring.primaries(part):
                if not self.mine(node, device):
                    nodes[node['id']] = node
                    asked[node['id']][str(part)] = Trees.root(mine[part])
        for number, body in asked.items():
            try:
                for part, theirs in (self.ask(nodes[number], 'parts', policy, body=body) or {}).items():
                    wanted[int(part)] |= {suffix for suffix, found in theirs.items() if mine[int(part)].get(suffix) != found}
            except Failed as error:
                self._could_not(nodes[number], error)
        for part, suffixes in wanted.items():
            if suffixes and not self.ending.is_set():
                self._complete(path, device, policy, part, sorted(suffixes))

    def _complete(self, path, device, policy, part, suffixes):
        """Get what is missing below suffixes. True if all was got, or need not be."""
        ring = self.server.rings.object(policy)
        theirs, complete = collections.defaultdict(list), True
        for node in ring.primaries(part):
            if self.mine(node, device):
                continue
            try:
                for digest, names in (self.ask(node, 'suffixes', policy, part, body=suffixes) or {}).items():
                    theirs[digest].append((node, names))
            except Failed as error:
                complete = False
                self._could_not(node, error)
        home = self.server.home(device, policy, part)
        for digest, found in theirs.items():
            folder = f'{diskfile.folder_of(policy)}/{part}/{digest[-3:]}/{digest}'
            try:
                complete &= self._object(path, folder, policy, part, home, found)
            except (Failed, Out, OSError, Damaged) as error:
                complete = False
                self.progress.count('failed_objects')
                LOG.warning('%s/%s was not completed: %s', path, folder, error)
        return complete

    def _object(self, path, folder, policy, part, home, found):
        """Bring one object to what it is elsewhere. ``found``: ``[(node, names)]``. False if too little of it was found."""
        files = diskfile.files_in(f'{path}/{folder}')
        gone = max((name[:-3] for _, names in found for name in names if name.endswith('.ts')), default='')
        durable = max((name.partition('#')[0] for _, names in found for name in names if name.endswith('#d.data')), default='')
        newest = max(gone, durable)
        if not newest or (files is not None and max(files.data or '', files.gone or '') > newest):
            return True
        if gone >= durable:
            self._fetch(path, folder, policy, part, gone + '.ts', found)
            return True
        held = files.held.get(durable, {}) if isinstance(files, diskfile.Fragments) else {}
        if home in held:
            if not held[home].endswith('#d.data') and fragments.commit(f'{path}/{folder}', durable, home) == 201:
                self.progress.count('made durable')
        elif not self._rebuild(path, folder, policy, part, durable, home, found):
            return False
        for name in sorted({name for _, names in found for name in names if name.endswith('.meta') and name[:-5] > durable}):
            self._fetch(path, folder, policy, part, name, found)
        return True

    @contextlib.contextmanager
    def _open(self, node, policy, part, digest, name):
        """``(metadata, size of the body, read)`` of a file of a peer."""
        if (node['ip'], node['port']) in self.server.local:
            try:
                file, metadata, size = self.server.replication.fetch(node['device'], policy, part, digest, name)
            except (Out, OSError, diskfile.Corrupt) as error:
                raise Failed(str(error)) from error
            with file:
                yield metadata, size, file.read
            return
        head = wire.head_of('REPLICATE', f'/{node["device"]}/fetch/{policy}/{part}/{digest}/{name}', {'Content-Length': 0})
        connection = self.client.connect(node, head)
        reply = connection and self.client.answer(connection, node, 'REPLICATE', lambda: self.client.connect(node, head))
        if not reply:
            raise Failed('no answer')
        with contextlib.closing(Fragments(reply)) as source:
            if reply.status != 200:
                raise Failed(str(reply.status))
            yield json.loads(reply.headers['X-Backend-Metadata']), int(reply.headers['Content-Length']), source.read

    def _fetch(self, path, folder, policy, part, name, found):
        """Have a file that another device has. Raises :class:`Failed` if none gives it."""
        files = f'{path}/{folder}'
        if os.path.isdir(files) and old_among(os.listdir(files), name):
            return
        failed = Failed(f'nobody has {name}')
        for node, names in found:
            if name not in names:
                continue
            try:
                with self._open(node, policy, part, os.path.basename(folder), name) as (metadata, size, read), \
                        Writer(self.server.devices, path, folder) as writer:
                    digest = hashlib.md5(usedforsecurity=False)
                    for start in range(0, size, 262144):
                        data = read(min(262144, size - start))
                        digest.update(data)
                        writer.write(data)
                    if metadata.get('Etag', digest.hexdigest()) != digest.hexdigest():
                        raise Failed('it is damaged there')
                    writer.commit(name, metadata)
                self.progress.count('fetched')
                return
            except (Failed, *wire.ERRORS) as error:
                failed = error
        raise failed

    def _rebuild(self, path, folder, policy, part, stamp, home, found):
        """Make the fragments of a number out of others. False if there are too few."""
        codec, digest = self.server.rings.codec(policy), os.path.basename(folder)
        sources = {}            # {number: [(node, name)]}
        for node, names in found:
            for name in names:
                if name.endswith('.data') and '#' in name and name.startswith(stamp + '#'):
                    sources.setdefault(diskfile.fragment_of(name)[1], []).append((node, name))
        for node, name in sources.pop(home, ()):
            # Somebody has what is to be here: a copy is less work.
            if name == diskfile.fragment_name(stamp, home, True):
                try:
                    self._fetch(path, folder, policy, part, name, [(node, [name])])
                    return True
                except Failed as error:
                    LOG.info('%s/%s of %s: %s', folder, name, node['device'], error)
        while len(sources) >= codec.data:
            chosen = {number: sources[number][0] for number in sorted(sources)[:codec.data]}
            with contextlib.ExitStack() as stack:
                opened, bad = {}, None
                for number, (node, name) in chosen.items():
                    try:
                        opened[number] = stack.enter_context(self._open(node, policy, part, digest, name))
                    except Failed as error:
                        bad = number, node, error
                        break
                bad = bad or self._calculate(path, folder, stamp, home, codec, opened)
            if bad is None:
                self.progress.count('rebuilt')
                return True
            LOG.warning('%s/%s of %s: %s', folder, chosen[bad[0]][1], chosen[bad[0]][0]['device'], bad[-1])
            sources[bad[0]].pop(0)
            if not sources[bad[0]]:
                del sources[bad[0]]
        self.progress.count('too few fragments')
        LOG.error('%s/%s cannot be made of what there is of %s now', path, folder, stamp)
        return False

    def _calculate(self, path, folder, stamp, home, codec, opened):
        """Do so; None, or which source is bad, and why."""
        metadata = next(iter(opened.values()))[0]
        ec = metadata['Ec']
        with Writer(self.server.devices, path, folder) as writer:
            self.server.devices.need(path, codec.archive_size(ec['length']))
            digest = hashlib.md5(usedforsecurity=False)
            for place in range(0, ec['length'], ec['segment']):
                rest = min(ec['segment'], ec['length'] - place)
                size = ec['fragment'] if rest == ec['segment'] else codec.fragment_size(rest)
                pieces = []
                for number, (_, _, read) in opened.items():
                    try:
                        piece = read(size)
                        codec.check(piece, number)
                    except (Damaged, *wire.ERRORS) as error:
                        return number, error
                    pieces.append(piece)
                made = codec.rebuild(pieces, home)
                digest.update(made)
                writer.write(made)
            writer.commit(diskfile.fragment_name(stamp, home, True),
                          {**metadata, 'Etag': digest.hexdigest(), 'Ec': {**ec, 'number': home}})
        return None

    # Healing

    def heals(self, kind, policy):
        """Objects of policies with an erasure code."""
        return kind == 'object' and self.server.rings.codec(policy) is not None

    def fetch(self, kind, device, policy, part, suffix):
        """Complete what is below a suffix."""
        path = f'{self.server.devices.root}/{device}'
        if self.server.home(device, policy, int(part)) is None:
            return True         # a handoff's: the others make it anew
        return self._complete(path, device, policy, int(part), [suffix])
