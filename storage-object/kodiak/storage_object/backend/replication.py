"""What peers ask of a device to bring each other to one state: the method REPLICATE.

``REPLICATE /{device}/{what}/...`` with a JSON body (but for ``file``):

- ``id``: ``{id}``, which changes when a device comes back empty.
- ``parts/{policy}``, body ``{partition: hash}``: the suffixes' hashes of those of these partitions that are different here.
- ``suffixes/{policy}/{partition}``, body ``[suffix]``: ``{hash: [file names]}`` of these.
- ``file/{policy}/{partition}/{hash}/{name}``, the file as body: it is checked, and takes its place.
- ``fetch/{policy}/{partition}/{hash}/{name}``: the body of a file; what its metadata says in ``X-Backend-Metadata``.
- ``databases/{kind}``, body ``{hash: [partition, summary]}``: the hashes whose database is different here, or is not here.
- ``database/{kind}/{partition}/{hash}``, body: what the database says of itself: it is merged (made, if it is not here). The
  answer tells up to which ``seq`` the rows of that file are known here.
- ``rows/{kind}/{partition}/{hash}``, body ``{id, seq, rows}``: they are merged.
- ``shards/{partition}/{hash}``, body ``{message}``: a container's shard ranges (or null) are merged. The answer has those that are
  here, and ``copied`` (whether all rows here are in the shards) and ``policy``.
- ``cleave/{partition}/{hash}``, body ``{account, container, rows}``, and for a shard (which is made if need be) ``range``,
  ``root``, ``parent``, ``policy``: the rows are merged, and on the disk when the answer comes: ``{objects, bytes, state}``.
- ``push/{kind}/{policy}/{partition}/{suffix}``, body ``{ip, port, device}``: send that device of the ring what is here below the
  suffix.
"""
import hashlib
import json
import os
import re

import orjson

from ..spans import ACTIVE, PARENT, ROOT, Range
from . import diskfile
from .base import JSON, Part, answer
from .broker import ZERO, Brokers, Corrupt
from .devices import STAMP, Out
from .diskfile import Writer
from .trees import Trees, hash_folders

CHUNK = 262144
FRAGMENT = re.compile(r'([^#]+)#\d{1,3}(?:#d)?\.data\Z')
MOST = 64 << 20         # bytes of a JSON body


def summary(info):
    """What two databases have in common when they say and list the same."""
    metadata = hashlib.md5(orjson.dumps(info['metadata'], option=orjson.OPT_SORT_KEYS), usedforsecurity=False).hexdigest()
    # The rows of a sharded container are on their way to its shards, from each of its files.
    digest = 0 if info.get('sharding') == 'sharded' else info['digest']
    return (f'{digest:x} {info["put_stamp"]} {info["delete_stamp"]} {info["status"]} {info["policy"]} {metadata}'
            + (' ' + info['shards'] if info.get('shards') else ''))


class Replication:
    """Answers peers.

    :param server: the :class:`~kodiak.storage_object.backend.app.Server`.
    """

    def __init__(self, server):
        self.server, self.devices = server, server.devices
        self.trees = Trees()
        self.push = None        # the replicator's, where it runs

    def handle(self, request, device, what, rest):
        """Answer a request."""
        if what == 'fetch':
            return self._fetched(request, device, *rest)
        if what == 'file':
            return answer(self.file(device, *rest, read=request.input.read, length=request.content_length))
        body = request.body(MOST)
        found = self.call(device, what, rest, orjson.loads(body) if body else None)
        return answer(404) if found is None else answer(200, {'Content-Type': JSON}, orjson.dumps(found))

    def call(self, device, what, rest, body):
        """The same without HTTP, for the devices of this process."""
        function = {'id': self.identity, 'parts': self.parts, 'suffixes': self.suffixes, 'databases': self.databases,
                    'database': self.database, 'rows': self.rows, 'push': self.pushed,
                    'shards': self.shards, 'cleave': self.cleave}.get(what)
        if function is None:
            return None
        return function(self.devices.path(device), device, *rest, body=body)

    def identity(self, path, device, body=None):
        """The device's id."""
        return {'id': self.devices.identity(path)}

    # Objects

    def parts(self, path, device, policy, body):
        """Compare partitions."""
        found = {}
        for part, root in body.items():
            mine = self.trees.partition(path, int(policy), int(part), self.server.home(device, int(policy), int(part)))
            if Trees.root(mine) != root:
                found[part] = mine
        return found

    def suffixes(self, path, device, policy, part, body):
        """List the files of suffixes."""
        top = f'{path}/{diskfile.folder_of(int(policy))}/{int(part)}'
        found = {}
        for suffix in body:
            if len(suffix) == 3 and suffix.isalnum():
                found.update(hash_folders(f'{top}/{suffix}'))
        return found

    def fetch(self, device, policy, part, digest, name):
        """``(open file, metadata, size of the body)`` of a file."""
        path, policy, part = self.devices.path(device), int(policy), int(part)
        if len(digest) != 32 or not digest.isalnum() or not _is_file_name(name):
            raise ValueError('no file')
        file = open(f'{path}/{diskfile.folder_of(policy)}/{part}/{digest[-3:]}/{digest}/{name}', 'rb', buffering=0)  # noqa: SIM115
        try:
            return file, *diskfile.read_trailer(file.fileno())
        except BaseException:
            file.close()
            raise

    def _fetched(self, request, device, *rest):
        try:
            file, metadata, size = self.fetch(device, *rest)
        except (FileNotFoundError, diskfile.Corrupt):
            return answer(404)
        made = answer(200, {'Content-Length': size, 'X-Backend-Metadata': json.dumps(metadata)})
        wrapper = request.environ.get('wsgi.file_wrapper')
        made.body = wrapper(file, CHUNK) if wrapper else Part(file, size)
        return made

    def file(self, device, policy, part, digest, name, read, length):
        """Take a file. Returns the status."""
        path, policy, part = self.devices.path(device), int(policy), int(part)
        if length is None or len(digest) != 32 or not digest.isalnum() or not _is_file_name(name):
            return 400
        folder = f'{diskfile.folder_of(policy)}/{part}/{digest[-3:]}/{digest}'
        if is_old(f'{path}/{folder}', name):
            while length and (data := read(min(CHUNK, length))):
                length -= len(data)
            return 200
        self.devices.need(path, length)
        with Writer(self.devices, path, folder) as writer:
            writer.expect(length)
            while length and (data := read(min(CHUNK, length))):
                writer.write(data)
                length -= len(data)
            if length:
                return 499
            try:
                metadata = check(writer.descriptor)
            except diskfile.Corrupt:
                return 422
            names = metadata.get('name', '').split('/', 3)
            if len(names) != 4 or self.server.digest('object', *names[1:], policy=policy) != digest:
                return 422
            writer.commit(name)
        return 201

    # Databases

    def databases(self, path, device, kind, body):
        """Compare databases."""
        found = []
        for digest, (part, told) in body.items():
            broker = self._find(kind, path, part, digest)
            if broker is None or summary(broker.info()) != told:
                found.append(digest)
        return found

    def _find(self, kind, path, part, digest):
        if len(digest) != 32 or not digest.isalnum():
            raise ValueError('no hash')
        return self.server.brokers.get(kind, Brokers.path(path, kind, int(part), digest))

    def database(self, path, device, kind, part, digest, body):
        """Merge what a peer's database says of itself."""
        if self.server.digest(kind, body['account'], body['container']) != digest:
            raise ValueError('another hash')
        broker = self._find(kind, path, part, digest)
        if broker is None:
            self.devices.need(path)
            file = Brokers.path(path, kind, int(part), digest)
            Brokers.KINDS[kind].create(file, path, body['account'], body['container'], body['created'],
                                       self.devices.temporary(path), body['policy'])
            broker = self._find(kind, path, part, digest)
            if broker is None:
                raise Out('the database cannot be made')
        try:
            mine = broker.info()
            policy = None
            if body['policy'] != mine['policy'] and (
                    mine['put_stamp'] == ZERO or (body['changed_stamp'], body['policy']) > (mine['changed_stamp'], mine['policy'])):
                policy = body['policy']
            broker.update(put=body['put_stamp'], delete=body['delete_stamp'], metadata=body['metadata'], policy=policy,
                          status=body['status'] if body['delete_stamp'] > mine['delete_stamp'] else None)
            if body.get('message'):
                broker.merge_message(body['message'])
            mine = broker.info()
            return {'id': mine['id'], 'known': broker.known(body['id']), 'summary': summary(mine)}
        except Corrupt as error:
            self.server.brokers.damaged(kind, broker.path, error)
            raise Out('the database was damaged') from error

    def rows(self, path, device, kind, part, digest, body):
        """Merge rows of a peer's database."""
        broker = self._find(kind, path, part, digest)
        if broker is None:
            return None
        changed = broker.put([tuple(row[:-1]) for row in body['rows']], source=(body['id'], body['seq']))
        if changed and kind == 'container':
            self.server.updater.look(broker.path)
        return {'changed': changed}

    def shards(self, path, device, part, digest, body):
        """Exchange shard ranges."""
        broker = self._find('container', path, part, digest)
        if broker is None:
            return None
        if body['message']:
            broker.merge_message(body['message'])
        table = broker.table()
        return {'message': broker.message(), 'copied': table.promised, 'policy': broker.info()['policy']}

    def cleave(self, path, device, part, digest, body):
        """Take rows of another container, of which this is a shard, or the root."""
        account, container, own = body['account'], body['container'], body.get('range')
        if self.server.digest('container', account, container) != digest:
            raise ValueError('another hash')
        broker = self._find('container', path, part, digest)
        if broker is None:
            if own is None:
                return None
            self.devices.need(path)
            file = Brokers.path(path, 'container', int(part), digest)
            Brokers.KINDS['container'].create(file, path, account, container, own['timestamp'], self.devices.temporary(path),
                                              body['policy'])
            broker = self._find('container', path, part, digest)
            if broker is None:
                raise Out('the database cannot be made')
        if own is not None:
            own = Range.of(own)
            if broker.info()['put_stamp'] == ZERO:
                broker.update(put=own.stamp, metadata={ROOT: [body['root'], own.stamp], PARENT: [body['parent'], own.stamp]})
            with broker.changing() as table:
                mine = table.own if table.key in table.ranges else own._replace(state=ACTIVE, epoch='')
                table.own = mine.merged(mine._replace(stamp=own.stamp, lower=own.lower, upper=own.upper, deleted=own.deleted))
        broker.put([tuple(row) for row in body['rows']])
        broker.settle()
        self.server.updater.look(broker.path)
        info = broker.info()
        return {'objects': info['rows'], 'bytes': info['bytes'], 'state': info['sharding']}

    def pushed(self, path, device, kind, policy, part, suffix, body):
        """Send a peer what is here."""
        if self.push is None:
            return None
        return {'sent': self.push(path, device, kind, int(policy), part, suffix, body)}


def _is_file_name(name):
    stem, dot, extension = name.rpartition('.')
    if found := FRAGMENT.match(name):
        stem = found[1]
    stamps = stem.split('+') if extension == 'meta' else [stem]
    return dot + extension in diskfile.EXTENSIONS and len(stamps) < 3 and all(map(STAMP.match, stamps))


def is_old(folder, name):
    """Whether a file would be of no use in an object's folder: it is there, or something newer."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return old_among(names, name)


def old_among(names, name):
    """Whether a file is of no use beside others."""
    return name in names or name in diskfile.sort([*names, name]).rubbish


def check(descriptor):
    """Its metadata, if a file is whole; raises :class:`~kodiak.storage_object.backend.diskfile.Corrupt`."""
    metadata, size = diskfile.read_trailer(descriptor)
    if 'Etag' in metadata:
        md5, place = hashlib.md5(usedforsecurity=False), 0
        while place < size:
            data = os.pread(descriptor, min(CHUNK, size - place), place)
            if not data:
                raise diskfile.Corrupt('it ends early')
            md5.update(data)
            place += len(data)
        if md5.hexdigest() != metadata['Etag']:
            raise diskfile.Corrupt('its body has another checksum')
    return metadata
