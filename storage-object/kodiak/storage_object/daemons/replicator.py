"""The replicator: brings peers to what this node has, sending only what they lack.

Each pass compares every partition and database with the other devices that are to hold it, by hashes; a request a peer where
nothing is different. What is on a device that is not to hold it goes to those that are, and then from here. Objects that were put
away as damaged are fetched first (:meth:`Replicator.heal`).
"""
import collections
import logging
import os

from ..backend import diskfile
from ..backend.broker import Broker, Corrupt
from ..backend.replication import old_among, summary
from ..backend.trees import Trees, databases, hash_folders, state_of
from .peers import Failed, Peers
from .reconciler import queue_strays

LOG = logging.getLogger(__name__)
BATCH = 512


class Replicator(Peers):
    """Pushes; asks peers to push what has to be healed here."""

    name = 'replicator'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._summaries, self._strayed = {}, set()
        self._strikes = collections.Counter()
        server.replication.push = self.push

    # A pass

    def once(self):
        """A pass over all devices."""
        for device in self.server.devices.names():
            path = f'{self.server.devices.root}/{device}'
            for policy in self.server.policies:
                if self.server.rings.codec(policy) is None:
                    self._objects(path, device, policy)
            for kind in ('account', 'container'):
                self._databases(path, device, kind)

    def _objects(self, path, device, policy):
        ring = self.server.rings.object(policy)
        ring.reload_if_changed()
        compared = collections.defaultdict(dict)
        for part in self.fresh(Trees.parts(path, policy), f'{device} {policy}'):
            suffixes = self.server.replication.trees.partition(path, policy, int(part))
            if not suffixes:
                self._remove_empty(f'{path}/{diskfile.folder_of(policy)}/{part}')
                continue
            if int(part) >= 1 << ring.part_power:
                continue
            primaries = ring.primaries(int(part))
            others = [node for node in primaries if not self.mine(node, device)]
            if len(others) == len(primaries):
                self._hand_over(path, policy, part, suffixes, others)
                continue
            for node in others:
                compared[node['id']][part] = (node, Trees.root(suffixes), suffixes)
                if len(compared[node['id']]) >= BATCH:
                    self._compare(path, policy, compared.pop(node['id']))
        for parts in compared.values():
            if self.ending.is_set():
                return
            self._compare(path, policy, parts)

    def _compare(self, path, policy, parts):
        node = next(iter(parts.values()))[0]
        try:
            different = self.ask(node, 'parts', policy, body={part: root for part, (_, root, _) in parts.items()})
            for part, theirs in (different or {}).items():
                self._bring(path, policy, part, parts[part][2], theirs, node)
        except Failed as error:
            self._could_not(node, error)

    def _bring(self, path, policy, part, mine, theirs, node, only=None):
        """Send a peer what it lacks of a partition. Returns ``{hash: names}`` that it has now."""
        wanted = [suffix for suffix, found in mine.items() if theirs.get(suffix) != found and only in (None, suffix)]
        if not wanted:
            return {}
        there = self.ask(node, 'suffixes', policy, part, body=wanted) or {}
        top, sent = f'{path}/{diskfile.folder_of(policy)}/{part}', {}
        for suffix in wanted:
            for digest, names in hash_folders(f'{top}/{suffix}').items():
                have = there.get(digest, [])
                # The body first: metadata means nothing without it.
                for name in sorted(names, key=lambda name: name.endswith('.meta')):
                    if not old_among(have, name):
                        try:
                            self.send(node, f'{top}/{suffix}/{digest}/{name}', policy, part, digest, name)
                        except FileNotFoundError:
                            continue            # replaced meanwhile
                        except diskfile.Corrupt as error:
                            LOG.error('%s/%s/%s is damaged: %s', top, suffix, digest, error)
                            diskfile.quarantine(path, f'{top}/{suffix}/{digest}', diskfile.folder_of(policy))
                            self.server.damaged_object(os.path.basename(path), policy, part, suffix)
                            break
                        have = [*have, name]
                sent[digest] = names
        return sent

    def _hand_over(self, path, policy, part, suffixes, primaries):
        """What a device is not to hold goes to all that are, and then from here."""
        top, kept = f'{path}/{diskfile.folder_of(policy)}/{part}', {}
        for suffix in suffixes:
            kept.update(hash_folders(f'{top}/{suffix}'))
        try:
            for node in primaries:
                theirs = (self.ask(node, 'parts', policy, body={part: ''}) or {}).get(part, {})
                self._bring(path, policy, part, suffixes, theirs, node)
        except Failed as error:
            self._could_not(node, error)
            return
        for digest, names in kept.items():
            folder = f'{top}/{digest[-3:]}/{digest}'
            for name in names:
                try:
                    os.unlink(f'{folder}/{name}')
                except FileNotFoundError:
                    pass
            diskfile.tidy(folder)
            self.progress.count('handed over')
        self._remove_empty(top)

    # Databases

    def _databases(self, path, device, kind):
        ring = getattr(self.server.rings, kind)
        ring.reload_if_changed()
        compared, before = collections.defaultdict(dict), self.before()
        for part, digest, file in self.fresh(list(databases(path, kind)), f'{device} {kind}'):
            try:
                told = self._summary(kind, file, before)
                if file in self._strayed and queue_strays(self.server, file):
                    self._strayed.discard(file)
            except Corrupt as error:
                self.server.brokers.damaged(kind, file, error)
                continue
            if told is None or int(part) >= 1 << ring.part_power:
                continue
            primaries = ring.primaries(int(part))
            others = [node for node in primaries if not self.mine(node, device)]
            if len(others) == len(primaries):
                if file not in self._strayed:
                    self._hand_over_database(kind, part, digest, file, others)
                continue
            for node in others:
                compared[node['id']][digest] = (node, part, told, file)
                if len(compared[node['id']]) >= BATCH:
                    self._compare_databases(kind, compared.pop(node['id']))
        for found in compared.values():
            if self.ending.is_set():
                return
            self._compare_databases(kind, found)

    def _summary(self, kind, file, before):
        """The summary of a database that has a reason to be; looked up again when the file has changed."""
        stamp = state_of(file)
        if stamp is None:
            return None
        known = self._summaries.get(file)
        if known is not None and known[0] == stamp:
            return known[1]
        broker = self.server.brokers.get(kind, file)
        if broker is None:
            return None
        info = broker.info()
        if Broker.is_deleted(info) and info['delete_stamp'] < before:
            self._remove_database(file)
            return None
        if kind == 'container' and broker.strays(1):
            self._strayed.add(file)
        self._summaries[file] = (stamp, summary(info))
        return self._summaries[file][1]

    def _remove_database(self, file):
        self.server.brokers.forget(file)
        self._summaries.pop(file, None)
        for name in (file + '-shm', file + '-wal', file):
            try:
                os.unlink(name)
            except FileNotFoundError:
                pass
        folder = os.path.dirname(file)
        for each in (folder, os.path.dirname(folder)):
            try:
                os.rmdir(each)
            except OSError:
                break

    def _compare_databases(self, kind, found):
        node = next(iter(found.values()))[0]
        try:
            asked = {digest: [part, told] for digest, (_, part, told, _) in found.items()}
            for digest in self.ask(node, 'databases', kind, body=asked) or ():
                if self.ending.is_set():
                    return
                _, part, _, file = found[digest]
                self._bring_database(kind, part, digest, file, node)
        except Failed as error:
            self._could_not(node, error)

    def _bring_database(self, kind, part, digest, file, node, leaving=False):
        """Send a peer what its database lacks. Returns the last ``seq`` that it has now, or None.

        :param leaving: this file is to go.
        """
        broker = self.server.brokers.get(kind, file)
        if broker is None:
            return None
        info = broker.info()
        ranges = broker.message() if kind == 'container' else None
        reply = self.ask(node, 'database', kind, part, digest, body={**info, 'message': ranges} if ranges else info)
        seq = reply['known']
        if info.get('sharding') == 'sharded' and not leaving:
            self.progress.count('databases')
            return seq          # its rows go to its shards
        if seq >= info['seq'] and reply['summary'] != summary(info):
            # All was sent, and yet it is different: after some passes that its own rows may have needed, all is sent again.
            self._strikes[digest, node['id']] += 1
            if self._strikes[digest, node['id']] > 3:
                del self._strikes[digest, node['id']]
                seq = 0
        while rows := broker.later(seq):
            seq = rows[-1][-1]
            if self.ask(node, 'rows', kind, part, digest, body={'id': info['id'], 'seq': seq, 'rows': rows}) is None:
                raise Failed('its database went away')
            self.progress.count('rows', len(rows))
        self.progress.count('databases')
        return seq

    def _hand_over_database(self, kind, part, digest, file, primaries):
        try:
            sent = [self._bring_database(kind, part, digest, file, node, leaving=True) for node in primaries]
        except Failed as error:
            self._could_not(primaries[0], error)
            return
        broker = self.server.brokers.get(kind, file)
        if broker is not None and all(seq is not None and seq >= broker.info()['seq'] for seq in sent):
            self._remove_database(file)
            self.progress.count('handed over')

    # Healing

    def fetch(self, kind, device, policy, part, suffix):
        """Ask the other devices that hold a partition to send what is below a suffix. True if one did."""
        ring = self.server.rings.object(policy) if kind == 'object' else getattr(self.server.rings, kind)
        primaries = ring.primaries(int(part))
        own = next((node for node in primaries if self.mine(node, device)), None)
        if own is None:
            return True         # it is a handoff's: its primaries have what there is
        done = False
        for node in primaries:
            if node is own:
                continue
            try:
                body = {'ip': own['ip'], 'port': own['port'], 'device': own['device']}
                done |= self.ask(node, 'push', kind, policy, part, suffix, body=body) is not None
            except Failed as error:
                self._could_not(node, error)
        return done

    def push(self, path, device, kind, policy, part, suffix, body):
        """Send a device of the ring what is here below a suffix. Returns how much was sent."""
        ring = self.server.rings.object(policy) if kind == 'object' else getattr(self.server.rings, kind)
        node = next((node for node in ring.primaries(int(part)) if all(node[name] == body[name] for name in body)), None)
        if node is None:
            return 0
        if kind == 'object':
            suffixes = self.server.replication.trees.partition(path, policy, int(part))
            return len(self._bring(path, policy, part, suffixes, {}, node, only=suffix))
        sent = 0
        for each, digest, file in list(databases(path, kind)):
            if each == part and digest.endswith(suffix):
                self._bring_database(kind, part, digest, file, node)
                sent += 1
        return sent
