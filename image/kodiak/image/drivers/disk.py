"""The disk behind a volume's connection, read and written by this process without a device of the host, and without root.

QEMU is the initiator (``qemu-nbd``), as it is for guests: it connects to the volume over whatever the connection says, takes its
data for what it is (raw) and gives it to this process alone, over a socket in a folder that nobody else may enter. It ends when
this process closes the socket, or dies.
"""
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from . import base

#: Seconds until the volume must be open, and for one request. Less than the lease of what is being written.
OPEN, ANSWER = 30, 45
#: What one request may carry, and how many may wait for their answer.
MOST, AHEAD = 1 << 20, 4
_HELLO = struct.Struct('>8s8sH')
_OPTION = struct.Struct('>8sII')
_TOLD = struct.Struct('>QIII')
_REQUEST = struct.Struct('>IHHQQI')
_REPLY = struct.Struct('>IIQ')
READ, WRITE, DISCONNECT, FLUSH, ZEROES = 0, 1, 2, 3, 6
_ACK, _INFO = 1, 3
_CAN_ZEROES = 1 << 6
_FULL = (28, 122)       # ENOSPC, EDQUOT


def description(connection, certificates):
    """How QEMU opens a volume: ``(block device options, arguments, secret or None)``.

    :param connection: ``connection_info`` of an attachment, flat. :param certificates: folder of the host's, for NBD with TLS.
    :raises StoreUnavailable: it is of a kind that cannot be opened here.
    """
    kind = connection.get('driver_volume_type')
    if connection.get('encrypted'):
        raise base.StoreUnavailable('volumes for image data cannot be encrypted ones; choose another volume type')
    if kind not in KINDS:
        raise base.StoreUnavailable(f'volumes that are reached by {kind} cannot be opened here')
    return KINDS[kind](connection, certificates)


def _iscsi(connection, certificates):
    options = {'driver': 'iscsi', 'transport': 'tcp', 'portal': connection['target_portal'], 'target': connection['target_iqn'],
               'lun': int(connection.get('target_lun', 0)), 'initiator-name': initiator()}
    if not connection.get('auth_password'):
        return options, [], None
    return {**options, 'user': connection['auth_username'], 'password-secret': 'key'}, [], connection['auth_password']


def _nbd(connection, certificates):
    options = {'driver': 'nbd', 'export': connection.get('export', ''), 'server': {
        'type': 'inet', 'host': str(connection['host']), 'port': str(connection['port'])}}
    if not connection.get('tls'):
        return options, [], None
    return {**options, 'tls-creds': 'tls'}, ['--object', f'tls-creds-x509,id=tls,dir={certificates},endpoint=client'], None


def _rbd(connection, certificates):
    pool, _, image = connection['name'].partition('/')
    options = {'driver': 'rbd', 'pool': pool, 'image': image}
    if connection.get('hosts'):
        options['server'] = [{'host': host.strip('[]'), 'port': str(port)}
                             for host, port in zip(connection['hosts'], connection['ports'], strict=True)]
    if connection.get('auth_enabled'):
        options['user'] = connection['auth_username']
    if connection.get('keyring'):
        return {**options, 'key-secret': 'key'}, [], connection['keyring']
    return options, [], None


KINDS = {'iscsi': _iscsi, 'nbd': _nbd, 'rbd': _rbd}


def initiator():
    """The name of this host among iSCSI's initiators."""
    try:
        with open('/etc/iscsi/initiatorname.iscsi', encoding='utf-8') as file:
            names = [line.partition('=')[2].strip() for line in file if line.startswith('InitiatorName=')]
    except OSError:
        names = []
    return names[0] if names else f'iqn.2010-10.org.openstack:{socket.gethostname()}'


class Disk:
    """An open volume: ``size`` in bytes, :meth:`write`, :meth:`flush`, :meth:`read`. One thread's at a time.

    :param connection: ``connection_info`` of an attachment. :param read_only: whether it is only read.
    :raises StoreUnavailable: it cannot be opened; also from every method, when it breaks off.
    """

    def __init__(self, connection, certificates='', read_only=False):
        options, arguments, secret = description(connection, certificates)
        self._number = self._waiting = 0
        self._socket = None
        self._process, complaint, folder = _start(options, arguments, secret, read_only)
        try:
            self._socket = self._connect(os.path.join(folder, 'disk'))
            self.size, self._flags = self._greet()
        except BaseException as error:
            # It listens first and opens the volume then: only its own words say what is wrong.
            said = complaint.last() if isinstance(error, base.StoreUnavailable) else None
            self._process.kill()
            self.close()
            if said:
                raise base.StoreUnavailable(f'the volume cannot be opened: {said}') from None
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _connect(self, path):
        end = time.monotonic() + OPEN
        while self._process.poll() is None and time.monotonic() < end:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(ANSWER)
            try:
                made.connect(path)
                return made
            except OSError:
                made.close()
                time.sleep(0.003)
        raise base.StoreUnavailable('the volume cannot be opened')

    def _greet(self):
        magic, more, _ = _HELLO.unpack(self._receive(_HELLO.size))
        if (magic, more) != (b'NBDMAGIC', b'IHAVEOPT'):
            raise base.StoreUnavailable('qemu-nbd speaks another protocol')
        name = struct.pack('>IH', 0, 0)
        self._send(struct.pack('>I', 3) + _OPTION.pack(b'IHAVEOPT', 7, len(name)) + name)
        size = flags = None
        while True:
            _, _, kind, length = _TOLD.unpack(self._receive(_TOLD.size))
            told = self._receive(length)
            if kind == _INFO and told[:2] == b'\0\0':
                size, flags = struct.unpack('>QH', told[2:12])
            elif kind != _INFO:
                break
        if kind != _ACK or size is None:
            raise base.StoreUnavailable('qemu-nbd does not give the volume')
        return size, flags

    def _send(self, data):
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise base.StoreUnavailable(f'the volume broke off: {error}') from None

    def _receive(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError as error:
                raise base.StoreUnavailable(f'the volume broke off: {error}') from None
            if not count:
                raise base.StoreUnavailable('the volume broke off')
            view = view[count:]
        return bytes(data)

    def _ask(self, command, offset=0, length=0, data=b''):
        self._number += 1
        self._send(_REQUEST.pack(0x25609513, 0, command, self._number, offset, length))
        if data:
            self._send(data)
        self._waiting += 1
        return self._number

    def _answered(self, lengths=None):
        """Take one answer; returns ``(number of the request, data)``. ``lengths``: how much data which request gets."""
        _, error, number = _REPLY.unpack(self._receive(_REPLY.size))
        self._waiting -= 1
        if error in _FULL:
            raise base.StoreFull
        if error:
            raise base.StoreUnavailable(f'the volume answers with an error: {os.strerror(error)}')
        return number, self._receive(lengths[number]) if lengths else b''

    def write(self, data, offset):
        """Write bytes; what fails may be told by a later call, :meth:`flush` at the latest."""
        data = bytes(data)
        for start in range(0, len(data), MOST):
            piece = data[start:start + MOST]
            if self._flags & _CAN_ZEROES and piece == _ZEROS[:len(piece)]:
                self._ask(ZEROES, offset, len(piece))
            else:
                self._ask(WRITE, offset, len(piece), piece)
            offset += len(piece)
            while self._waiting >= AHEAD:
                self._answered()

    def flush(self):
        """All that was written is on the volume's disk when this returns."""
        while self._waiting:
            self._answered()
        self._ask(FLUSH)
        self._answered()

    def read(self, offset, end):
        """An iterable of the pieces between two places."""
        wanted, came, ask = {}, {}, offset
        while offset < end:
            while ask < end and len(wanted) < AHEAD:
                length = min(MOST, end - ask)
                wanted[self._ask(READ, ask, length)] = length
                ask += length
            first = next(iter(wanted))
            while first not in came:
                number, data = self._answered(wanted)
                came[number] = data
            offset += wanted.pop(first)
            yield came.pop(first)

    def close(self):
        """Let go of the volume."""
        if self._socket is not None:
            try:
                self._ask(DISCONNECT)
            except base.StoreUnavailable:
                pass
            self._socket.close()
            self._socket = None
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_ZEROS = bytes(MOST)


class _Listener(threading.Thread):
    """Keeps what a process complains of."""

    def __init__(self, stream):
        super().__init__(name='qemu-nbd', daemon=True)
        self.said = []
        self._stream = stream
        self.start()

    def last(self):
        """The last of it that is not blank, once the process is at its end or has said nothing for long."""
        self.join(2)
        return b''.join(self.said[-1:]).decode(errors='replace').strip()[-200:]

    def run(self):
        with self._stream:
            while line := self._stream.readline(4096):
                if line.strip():
                    self.said = [*self.said[-20:], line]


def _start(options, arguments, secret, read_only):
    """Start qemu-nbd: ``(process, listener, folder of its socket)``. A secret is shown to it as an open file that has no name."""
    folder = tempfile.mkdtemp(prefix='kodiak-image-')
    command = ['qemu-nbd', '--socket', os.path.join(folder, 'disk'), '--cache=none', '--discard=unmap', *arguments]
    descriptors = []
    try:
        if secret is not None:
            descriptors.append(os.memfd_create('secret'))
            os.write(descriptors[0], secret.encode())
            command += ['--object', f'secret,id=key,file=/proc/self/fd/{descriptors[0]}']
        if read_only:
            command.append('--read-only')
        command.append('json:' + json.dumps({'driver': 'raw', 'file': options}))
        process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, cwd='/', env={'PATH': os.environ.get('PATH', os.defpath), 'LC_ALL': 'C'})
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
        raise base.StoreUnavailable('this host cannot open volumes: qemu-nbd is missing') from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return process, _Listener(process.stderr), folder
