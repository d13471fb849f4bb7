"""NBD over TLS by qemu-storage-daemon, for guests of QEMU.

Who connects shows a certificate of the deployment's own authority; the daemon is told over its QMP socket. It holds
every volume open once, however many exports it has.
"""
import hashlib
import json
import socket
import struct
import threading

from kodiak.storage_block.drivers import base as drivers
from kodiak.storage_block.exports import base

TIMEOUT = 15
PEER = struct.Struct('=iII')        # pid, user, group


class Qmp:
    """A connection to a QMP socket, which takes one at a time."""

    def __init__(self, path):
        self.path = path
        self.opened = 0         # how often it was connected: each time it may be another daemon
        self.pid = None
        self._socket = None
        self._stream = None
        self._lock = threading.RLock()

    def open(self):
        """Connect. :raises drivers.Fault: nobody listens."""
        with self._lock:
            self.close()
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            made.settimeout(TIMEOUT)
            try:
                made.connect(self.path)
                self._socket, self._stream = made, made.makefile('rb')
                self.pid = PEER.unpack(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[0]
                self._read()                                # the greeting
                self.ask('qmp_capabilities')
                self.opened += 1
            except (OSError, ValueError) as error:
                base.go_on(self.pid)
                made.close()
                self._socket = None
                raise drivers.Fault('export', f'The NBD server at {self.path} does not answer: {error}.')

    def close(self):
        """Disconnect."""
        with self._lock:
            if self._socket is not None:
                self._stream.close()
                self._socket.close()
                self._socket = None

    def alive(self):
        """True while the other side is there. Events that wait to be read are read."""
        with self._lock:
            if self._socket is None:
                return False
            try:
                self.ask('query-status')
            except Refused:
                return True
            except drivers.Fault:
                return False
            return True

    def ask(self, command, **arguments):
        """Run a command and return its answer. :raises Refused: it failed. :raises drivers.Fault: the connection is gone."""
        with self._lock:
            if self._socket is None:
                self.open()
            try:
                body = {'execute': command, **({'arguments': arguments} if arguments else {})}
                self._socket.sendall(json.dumps(body).encode() + b'\n')
                while True:
                    answer = self._read()
                    if 'return' in answer:
                        return answer['return']
                    if 'error' in answer:
                        raise Refused(command, answer['error'].get('desc', ''))
            except (OSError, ValueError) as error:
                base.go_on(self.pid)
                self.close()
                raise drivers.Fault('export', f'The NBD server at {self.path} broke off: {error}.')

    def _read(self):
        line = self._stream.readline()
        if not line:
            raise ConnectionError('the connection is closed')
        return json.loads(line)


class Refused(drivers.Fault):
    """The daemon's answer to a command is an error."""

    def __init__(self, command, text):
        super().__init__('export', f'qemu-storage-daemon: {command}: {text}')


class NbdExporter(base.Exporter):
    """Exports over NBD.

    :param path: the daemon's QMP socket. :param host: and ``port``: where it listens for guests.
    :param tls: whether it asks for certificates.
    """

    protocol = 'NBD'
    online_extend = True

    def __init__(self, path, host, port, tls=True):
        self.qmp, self.host, self.port, self.tls = Qmp(path), host, port, tls
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = None

    def start(self, lost):
        self._thread = threading.Thread(target=self._watch, args=(lost,), name='nbd-watch', daemon=True)
        self._thread.start()

    def stop(self):
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)
        self.qmp.close()

    def _watch(self, lost):
        seen = 0
        while not self._stopping.wait(1 if seen else 0):
            try:
                if not self.qmp.alive():
                    self.qmp.open()
            except drivers.Fault:
                if self._stopping.wait(0.3):
                    return
                continue
            if self.qmp.opened != seen:
                seen = self.qmp.opened
                lost()

    @staticmethod
    def _node(export):
        # A volume that moves is at two back ends at once. Such names may have 31 letters, the first of them no digit.
        place = json.dumps([export.volume_id, export.node.options], sort_keys=True)
        return 'v' + hashlib.sha256(place.encode()).hexdigest()[:30]

    @staticmethod
    def _id(export):
        return f'a-{export.attachment_id}'

    @staticmethod
    def name(export):
        """What the holder asks for."""
        return f'volume-{export.volume_id}.{export.attachment_id}'

    def _look(self):
        """``({export id: node}, {node: file})`` of what is ours."""
        exports = {found['id']: found['node-name'] for found in self.qmp.ask('query-block-exports') if found['id'].startswith('a-')}
        nodes = {found['node-name'] for found in self.qmp.ask('query-named-block-nodes', flat=True)
                 if found['node-name'].startswith('v')}
        return exports, nodes

    def sync(self, exports):
        with self._lock:
            there, nodes = self._look()
            wanted = {self._id(export): export for export in exports}
            for id, node in there.items():
                if id not in wanted or node != self._node(wanted[id]):
                    self.qmp.ask('block-export-del', id=id, mode='hard')
            self._drop(nodes - {self._node(export) for export in exports})
            there, nodes = self._look()
            return self._add(exports, there, nodes)

    def _add(self, exports, there, nodes):
        """Open and export what is not among ``there`` and ``nodes``."""
        results = {}
        for export in exports:
            id, node = self._id(export), self._node(export)
            try:
                if node not in nodes:
                    self.qmp.ask('blockdev-add', **export.node.options, **{'node-name': node, 'discard': 'unmap'})
                    nodes.add(node)
                if id not in there:
                    self.qmp.ask('block-export-add', type='nbd', id=id, **{'node-name': node}, name=self.name(export),
                                 writable=not export.read_only)
                results[export.attachment_id] = None
            except Refused as fault:
                results[export.attachment_id] = fault.message
        return results

    def _drop(self, nodes):
        """Close volumes."""
        for node in nodes:
            self._until_free('blockdev-del', **{'node-name': node})

    def _until_free(self, command, **arguments):
        """Run a command. An export that is going holds its volume for a moment: that is waited for."""
        for attempt in range(100):
            try:
                return self.qmp.ask(command, **arguments)
            except Refused:
                if attempt == 99:
                    raise
                self._stopping.wait(0.05)

    def resize(self, exports):
        """NBD has no word for a size that changed: who holds an export is cut off, and is told the size when it comes back."""
        with self._lock:
            for node in {self._node(export) for export in exports} & self._look()[1]:
                there = self._close(node)
                held = [export for export in exports if self._node(export) == node]
                try:
                    self._until_free('block_resize', **{'node-name': node}, size=held[0].size)
                finally:
                    self._add([export for export in held if self._id(export) in there], {}, {node})

    def _close(self, node):
        """End all exports of a volume; returns their ids."""
        there = {id for id, name in self._look()[0].items() if name == node}
        for id in there:
            self.qmp.ask('block-export-del', id=id, mode='hard')
        return there

    def reopen(self, exports):
        with self._lock:
            _there, nodes = self._look()
            gone = {self._node(export) for export in exports} & nodes
            for node in gone:
                self._close(node)
            self._drop(gone)
            self._add(exports, {}, nodes - gone)

    def pid(self):
        with self._lock:
            self.qmp.ask('query-version')
            return self.qmp.pid

    def connection(self, export):
        return {'driver_volume_type': 'nbd', 'data': {
            'host': self.host, 'port': self.port, 'export': self.name(export), 'tls': self.tls, 'discard': True}}
