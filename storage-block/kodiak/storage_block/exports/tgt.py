"""iSCSI by tgt, the target that runs without a kernel's help, for any initiator, with CHAP.

``tgtd`` is told over its own socket and not by ``tgtadm``, which would show passwords in the list of processes. It
answers only its own user: the agent's.
"""
import os
import re
import select
import socket
import struct
import threading
import time

from kodiak.storage_block.drivers import base as drivers
from kodiak.storage_block.exports import base

# The request is: mode, op, driver's name, length of all, target, session, logical unit, connection, host, kind of device,
# direction of an account, pack, force; then parameters as text. The answer is: error, length of all; then text.
REQUEST = struct.Struct('=II64sIiQQIIIIII')
ANSWER = struct.Struct('=II')
PEER = struct.Struct('=iII')                        # pid, user, group
NEW, DELETE, SHOW, BIND, UPDATE = 0, 1, 2, 3, 5
SYSTEM, TARGET, UNIT, ACCOUNT = 0, 1, 2, 7
ALL = -1
ERRORS = ('no error', 'unknown error', 'out of memory', 'no driver', 'no such target', 'no such unit', 'no such session',
          'no such connection', 'not bound', 'the target exists', 'the unit exists', 'it is bound', 'the entry exists',
          'no such entry', 'the account exists', 'no such account', 'too many accounts', 'invalid request', 'there is an account',
          'the target is in use', 'the unit is in use', 'the driver is in use', 'unsupported', 'unknown parameter',
          'removal is prevented')
BUSY = (ERRORS.index('the target is in use'), ERRORS.index('the unit is in use'))
LUN = 1
TIMEOUT = 10
LOOK = re.compile(r'^Target (\d+): (\S+)$')
FIELD = re.compile(r'^ +(LUN|Size|Readonly|Backing store path): (.*)$')


class Refused(drivers.Fault):
    """tgtd's answer to a request is an error."""

    def __init__(self, code, what):
        self.error = code
        super().__init__('export', f'tgtd: {what}: {ERRORS[code] if code < len(ERRORS) else code}')


class Tgtd:
    """The management socket of a tgtd. One request, one connection: that is its protocol."""

    def __init__(self, path):
        self.path = path
        self._peer = None

    def connect(self):
        """A new connection. :raises drivers.Fault: nobody listens."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.settimeout(TIMEOUT)
        try:
            made.connect(self.path)
        except OSError as error:
            made.close()
            raise drivers.Fault('export', f'The iSCSI target at {self.path} does not answer: {error.strerror}.')
        return made

    def ask(self, mode, op, params='', tid=0, lun=0, force=False):
        """One request. Returns the text of the answer. :raises Refused: tgtd can't or won't do it."""
        text = params.encode() + b'\0' if params else b''
        request = REQUEST.pack(mode, op, b'iscsi', REQUEST.size + len(text), tid, 0, lun, 0, 0, 0, 0, 0, int(force))
        try:
            with self.connect() as connection:
                self._peer = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[0]
                connection.sendall(request + text)
                error, length = ANSWER.unpack(_receive(connection, ANSWER.size))
                answer = _receive(connection, length - ANSWER.size)
        except OSError as problem:
            base.go_on(self._peer)
            raise drivers.Fault('export', f'The iSCSI target at {self.path} broke off: {problem}.')
        if error:
            raise Refused(error, params.split(',password=', maxsplit=1)[0] or f'target {tid}')
        return answer.rstrip(b'\0').decode(errors='replace')

    def pid(self):
        """The process that answers now. :raises drivers.Fault: nobody does."""
        self.ask(SYSTEM, SHOW)
        return self._peer

    def targets(self):
        """What there is: ``{name: {'tid', 'path', 'read_only', 'accounts': set, 'open': bool, 'ready': bool}}``."""
        found, current, part, lun = {}, None, None, None
        for line in self.ask(TARGET, SHOW, tid=ALL).splitlines():
            if header := LOOK.match(line):
                current = {'tid': int(header[1]), 'path': None, 'read_only': False, 'accounts': set(), 'open': False,
                           'ready': False}
                found[header[2]] = current
                continue
            if current is None:
                continue
            if line.startswith('    ') and not line.startswith('     '):
                part = line.strip()
            elif part == 'Account information:':
                current['accounts'].add(line.strip())
            elif part == 'ACL information:':
                current['open'] = current['open'] or line.strip() == 'ALL'
            elif line.strip() == 'State: ready':
                current['ready'] = True
            elif field := FIELD.match(line):
                if field[1] == 'LUN':
                    lun = int(field[2])
                elif lun == LUN and field[1] == 'Backing store path':
                    current['path'] = field[2]
                elif lun == LUN and field[1] == 'Readonly':
                    current['read_only'] = field[2] == 'Yes'
        return found

    def accounts(self):
        """The names of all accounts."""
        lines = self.ask(ACCOUNT, SHOW, tid=ALL).splitlines()
        return {line.strip() for line in lines if line.startswith(' ')}


def _receive(connection, size):
    data = b''
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError('the answer is cut off')
        data += piece
    return data


class TgtExporter(base.Exporter):
    """Exports over iSCSI.

    :param path: tgtd's socket. :param portal: ``address:port`` that initiators connect to.
    :param prefix: what the names of targets begin with.
    """

    protocol = 'iSCSI'
    online_extend = True

    def __init__(self, path, portal, prefix='iqn.2010-10.org.openstack:'):
        self.tgtd, self.portal, self.prefix = Tgtd(path), portal, prefix
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = None

    def start(self, lost):
        self._thread = threading.Thread(target=self._watch, args=(lost,), name='tgtd-watch', daemon=True)
        self._thread.start()

    def stop(self):
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join(5)

    def _watch(self, lost):
        """Tell of each tgtd that is found, and see it end.

        Its process is watched, not a connection: tgtd never gives up one that ends before a request, and then spins.
        """
        while not self._stopping.is_set():
            try:
                process = os.pidfd_open(self.tgtd.pid())
            except (drivers.Fault, OSError):
                self._stopping.wait(0.3)
                continue
            try:
                lost()
                poll = select.poll()
                poll.register(process, select.POLLIN)
                poll.register(self._wake, select.POLLIN)
                poll.poll()
            finally:
                os.close(process)

    def target(self, export):
        """The name of an export's target."""
        return f'{self.prefix}volume-{export.volume_id}.{export.attachment_id}'

    def sync(self, exports):
        with self._lock:
            there = {name: found for name, found in self.tgtd.targets().items() if name.startswith(self.prefix)}
            accounts = self.tgtd.accounts()
            wanted = {self.target(export): export for export in exports}
            for name, found in there.items():
                if name not in wanted or not self._same(found, wanted[name]):
                    self._remove(found)
                    accounts -= found['accounts']
            kept = {name for name in wanted if name in there and self._same(there[name], wanted[name])}
            used = {found['tid'] for found in self.tgtd.targets().values()}
            results = {}
            for name, export in wanted.items():
                try:
                    if name not in kept:
                        tid = next(number for number in range(1, 1 << 20) if number not in used)
                        used.add(tid)
                        self._make(name, export, tid, accounts)
                    results[export.attachment_id] = None
                except drivers.Fault as fault:
                    results[export.attachment_id] = fault.message
            return results

    @staticmethod
    def _same(found, export):
        return found['open'] and found['ready'] and found['path'] == export.node.path and found['read_only'] == export.read_only \
            and found['accounts'] == {export.username}

    def _make(self, name, export, tid, accounts):
        if not export.username or not export.password:
            raise drivers.Fault('export', 'An iSCSI export needs a user name and a password.', final=True)
        if export.node.path is None:
            raise drivers.Fault('export', 'tgt exports files and devices of its host only.', final=True)
        if export.username in accounts:
            # Left over, perhaps with another password.
            self.tgtd.ask(ACCOUNT, DELETE, f'user={export.username}')
        self.tgtd.ask(TARGET, NEW, f'targetname={name}', tid)
        try:
            self.tgtd.ask(ACCOUNT, NEW, f'user={export.username},password={export.password}')
            self.tgtd.ask(ACCOUNT, BIND, f'user={export.username}', tid)
            self._make_unit(export, tid)
            # Last: until now nobody is let in.
            self.tgtd.ask(TARGET, BIND, 'initiator-address=ALL', tid)
        except drivers.Fault:
            self._remove({'tid': tid, 'accounts': {export.username}})
            raise

    def _make_unit(self, export, tid):
        self.tgtd.ask(UNIT, NEW, f'path={export.node.path}', tid, LUN)
        # Guests tell the volume by its serial number; freed blocks are given back.
        self.tgtd.ask(UNIT, UPDATE, f'scsi_sn={export.volume_id},vendor_id=KODIAK,product_id=VOLUME,thin_provisioning=1'
                                    + (',readonly=1' if export.read_only else ''), tid, LUN)

    def _remove(self, found):
        # Whoever is inside is cut off; its commands that run are let finish.
        try:
            self.tgtd.ask(TARGET, UPDATE, 'state=offline', found['tid'])
            self._until_idle(TARGET, DELETE, found['tid'])
        except Refused as refused:
            if refused.error != ERRORS.index('no such target'):
                raise
        for user in found['accounts']:
            try:
                self.tgtd.ask(ACCOUNT, DELETE, f'user={user}')
            except Refused as refused:
                if refused.error != ERRORS.index('no such account'):
                    raise

    def resize(self, exports):
        """Let the unit's file be opened anew. tgtd would do it in one request, but a command of the guest that is just being
        worked on could meet it closed. So the door is shut, what runs is let finish, and the guest's initiator, which finds its
        connection gone, comes back and sends again what was not answered: that is what it does whenever a network breaks.

        One that connects for the first time in these milliseconds is turned away (a target error, which means: come again);
        compute's agent does so, as with every start of a guest that fails for a reason that may pass."""
        with self._lock:
            there = self.tgtd.targets()
            for export in exports:
                found = there.get(self.target(export))
                if found is None:
                    continue
                tid = found['tid']
                self.tgtd.ask(TARGET, UPDATE, 'state=offline', tid)
                try:
                    self._until_idle(UNIT, DELETE, tid)
                    self._make_unit(export, tid)
                finally:
                    self.tgtd.ask(TARGET, UPDATE, 'state=ready', tid)

    def _until_idle(self, mode, op, tid):
        """Delete something as soon as no command needs it any more."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return self.tgtd.ask(mode, op, tid=tid, lun=LUN, force=True)
            except Refused as refused:
                if refused.error not in BUSY or time.monotonic() > deadline:
                    raise
                self._stopping.wait(0.01)

    reopen = resize

    def pid(self):
        return self.tgtd.pid()

    def connection(self, export):
        return {'driver_volume_type': 'iscsi', 'data': {
            'target_portal': self.portal, 'target_iqn': self.target(export), 'target_lun': LUN, 'target_discovered': False,
            'auth_method': 'CHAP', 'auth_username': export.username, 'auth_password': export.password, 'discard': True}}
