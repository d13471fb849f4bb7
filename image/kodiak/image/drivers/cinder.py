"""Block storage by the Cinder API: a volume for each blob, in the project of the store's credentials.

A volume is attached to this host for as long as it is written or read, and detached after it. Its metadata says how much of it is
data, once all of it is there: a volume that does not say so is no blob yet.
"""
import collections
import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
import uuid

import requests
from keystoneauth1 import exceptions
from oslo_config import cfg

from kodiak.common.api import schema as schemas

from . import base, disk

LOG = logging.getLogger(__name__)
GIB = 1 << 30
CONNECT, READ = 15, 60
#: Attachments with a mode.
VERSION = 'volume 3.54'
#: Seconds that a volume may take to get into another status, and to go.
SETTLE, GO = 40, 20
SIZE = 'image_size'
#: Every attachment of a volume is for the same server, which there isn't: so it may have several at once, one a reader.
NAMESPACE = uuid.UUID('5f3c1f0e-6f4e-4a0c-9d1a-3a6b5b0e8d55')
#: How many volumes are known by heart.
KNOWN = 10000


class CinderStore(base.Store):
    """Blobs as volumes ``image-<key>``, which QEMU opens over iSCSI, NBD or RBD (:mod:`.disk`).

    Credentials are keystoneauth's options in the store's group, or the service's own; they need the role ``service``, since
    only services are told how to reach a volume.
    """

    OPTS = (
        cfg.StrOpt('volume_type', help='Type of the volumes; the default one if unset. Not one of encrypted volumes.'),
        cfg.StrOpt('region', help='Region whose block storage is used.'),
        cfg.StrOpt('interface', default='internal', choices=['public', 'internal', 'admin'], help='Which of its endpoints.'),
        cfg.StrOpt('certificates', default='/etc/kodiak/pki/nbd',
                   help='Folder of the certificate that this host shows to NBD servers (ca-cert.pem, client-cert.pem, '
                        'client-key.pem).'),
        *base.COMMON,
    )
    SCHEME = 'cinder'
    keystone = True

    def prepare(self):
        # Nothing is asked before there is a request, so that a service starts while its store is away.
        self._http = requests.Session()
        self._lock = threading.Lock()
        self._known = collections.OrderedDict()
        self.leases = Leases(os.path.join(self.state_path, 'image', 'attached', self.id))
        self._swept = False

    def request(self, method, path, body=None, accept=(), again=True):
        """One request: its answer as JSON, or the status where it is one of ``accept`` (404 ...).

        :raises StoreUnavailable: block storage cannot be reached, or refuses. :raises StoreFull: it gives no more.
        """
        try:
            session = self.session()
            root = session.get_endpoint(service_type='block-storage', interface=self.conf.interface, region_name=self.conf.region,
                                        skip_discovery=True)
            headers = {'X-Auth-Token': session.get_token(), 'OpenStack-API-Version': VERSION, 'Accept': 'application/json'}
        except exceptions.ClientException as error:
            raise base.StoreUnavailable(f'no token for block storage: {error}') from None
        if not root:
            raise base.StoreUnavailable('the catalog has no block storage')
        try:
            answer = self._http.request(method, root.rstrip('/') + path, json=body, headers=headers, timeout=(CONNECT, READ),
                                        allow_redirects=False)
        except requests.RequestException as error:
            raise base.StoreUnavailable(f'block storage cannot be reached: {error}') from None
        if answer.status_code == 401 and again:
            session.invalidate()
            return self.request(method, path, body, accept, again=False)
        if answer.status_code in accept:
            return answer.status_code
        if answer.status_code == 413:
            raise base.StoreFull
        if answer.status_code >= 300:
            raise base.StoreUnavailable(f'block storage answered {answer.status_code} to {method}: {answer.text[:200]}')
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise base.StoreUnavailable('block storage answers in another language') from None

    def volumes(self, key):
        """The volumes of a blob: one, or more where a request was sent again."""
        return self.request('GET', f'/volumes/detail?name=image-{key}')['volumes']

    def find(self, key):
        """``(volume id, bytes of data)`` of a blob; :class:`base.NoSuchData` where there is none that is whole."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        for volume in self.volumes(key):
            size = schemas.natural(str(volume.get('metadata', {}).get(SIZE, '')))
            if size is not None:
                return self.remember(key, volume['id'], size)
        raise base.NoSuchData(key)

    def remember(self, key, volume_id, size):
        """Know a blob from now on; returns what :meth:`find` does."""
        with self._lock:
            self._known[key] = volume_id, size
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return volume_id, size

    def settle(self, volume_id, wanted=('available',), seconds=SETTLE):
        """Wait until a volume has one of some statuses (None: it is gone); returns it, the status."""
        end, pause = time.monotonic() + seconds, 0.02
        while True:
            found = self.request('GET', f'/volumes/{volume_id}', accept=(404,))
            status = None if found == 404 else found['volume']['status']
            if status in wanted:
                return status
            if status is None or status.startswith('error') or time.monotonic() > end:
                raise base.StoreUnavailable(f"volume {volume_id} is {status or 'gone'}, not {' or '.join(map(str, wanted))}")
            time.sleep(pause)
            pause = min(pause * 1.5, 1)

    def act(self, volume_id, name, **arguments):
        """Have something done with a volume."""
        self.request('POST', f'/volumes/{volume_id}/action', {name: arguments})

    def attach(self, volume_id, mode):
        """An open :class:`Attachment`. ``mode``: ``rw`` or ``ro``."""
        self.sweep()
        return Attachment(self, volume_id, mode)

    def sweep(self):
        """Give up, once a process, the attachments of processes of this host that died."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        for attachment_id in self.leases.dead():
            try:
                self.detach(attachment_id)
            except base.StoreUnavailable as error:
                LOG.warning('Attachment %s of a process that died stays: %s', attachment_id, error)
                continue
            self.leases.forget(attachment_id)

    def detach(self, attachment_id):
        """Give an attachment up."""
        self.request('DELETE', f'/attachments/{attachment_id}', accept=(404,))

    def create(self, key, size=None):
        return CinderWriter(self, key, size)

    def open(self, key, offset=0):
        volume_id, size = self.find(key)
        return CinderReader(self.attach(volume_id, 'ro'), offset, size)

    def remove(self, key):
        """Remove the volume. Whoever still reads it is cut off."""
        with self._lock:
            self._known.pop(key, None)
        for volume in self.volumes(key):
            self.drop(volume['id'])

    def drop(self, volume_id):
        """Take a volume from whoever has it, and delete it."""
        for one in self.request('GET', f'/attachments?volume_id={volume_id}')['attachments']:
            self.detach(one['id'])
        if self.request('DELETE', f'/volumes/{volume_id}', accept=(404, 400)) == 400:
            # It is on its way into another status, or going already.
            if self.settle(volume_id, ('available', 'error', 'deleting', None), GO) in ('deleting', None):
                return self.settle(volume_id, (None,), GO)
            self.request('DELETE', f'/volumes/{volume_id}', accept=(404,))
        return self.settle(volume_id, (None,), GO)

    def url(self, key):
        return f'cinder://{self.id}/{self.find(key)[0]}'

    def properties(self):
        return {'volume_type': self.conf.volume_type or '', 'region': self.conf.region or ''}


class Leases:
    """What this process has attached, as locked files, so that the next one sees what a dead one left."""

    def __init__(self, folder):
        self._folder = folder
        os.makedirs(folder, mode=0o750, exist_ok=True)

    def take(self, name):
        """A locked file under a name; :meth:`forget` it."""
        file = open(os.path.join(self._folder, name), 'w')  # noqa: SIM115 (it is open for as long as it is held)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def forget(self, name):
        """Remove a file; the lock goes with it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._folder, name))

    def dead(self):
        """The names of files that no process holds."""
        found = []
        for name in os.listdir(self._folder):
            with contextlib.suppress(OSError), open(os.path.join(self._folder, name)) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(name)
        return found


class Attachment:
    """A volume that this host has, and its open :class:`kodiak.image.drivers.disk.Disk`."""

    def __init__(self, store, volume_id, mode):
        self._store = store
        self.id = self.disk = self._lease = None
        try:
            made = store.request('POST', '/attachments', {'attachment': {
                'volume_uuid': volume_id, 'instance_uuid': str(uuid.uuid5(NAMESPACE, volume_id)), 'mode': mode}}, accept=(404,))
            if made == 404:
                raise base.NoSuchData(volume_id)
            self.id = made['attachment']['id']
            self._lease = store.leases.take(self.id)
            told = store.request('PUT', f'/attachments/{self.id}', {'attachment': {'connector': self._connector(mode)}})
            self.disk = disk.Disk(told['attachment']['connection_info'], store.conf.certificates, read_only=mode == 'ro')
            store.request('POST', f'/attachments/{self.id}/action', {'os-complete': {}})
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _connector(mode):
        host = socket.gethostname()
        connector = {'host': host, 'initiator': disk.initiator(), 'multipath': False, 'mode': mode, 'os_type': 'linux',
                     'platform': os.uname().machine}
        with contextlib.suppress(OSError):
            connector['ip'] = socket.gethostbyname(host)
        return connector

    def close(self):
        """Give the volume back; what fails here is done when it is removed, or by the next process."""
        if self.disk is not None:
            self.disk.close()
            self.disk = None
        if self.id is None:
            return
        try:
            self._store.detach(self.id)
            if self._lease is not None:
                self._store.leases.forget(self.id)
        except base.StoreUnavailable as error:
            LOG.warning('Attachment %s could not be given up: %s', self.id, error)
        if self._lease is not None:
            self._lease.close()
        self.id = None


class CinderWriter(base.Writer):
    """Writes a volume, which grows where its size was not known before: while it is not attached, as every back end can."""

    def __init__(self, store, key, size):
        self._store = store
        self._key = key
        self._offset = 0
        self._attachment = None
        self._gib = max(1, -(-(size or 0) // GIB))
        self._id = store.request('POST', '/volumes', {'volume': {
            'name': f'image-{key}', 'size': self._gib, 'description': 'Data of an image', 'metadata': {'image_blob': key},
            **({'volume_type': store.conf.volume_type} if store.conf.volume_type else {})}})['volume']['id']
        try:
            store.settle(self._id)
        except BaseException:
            self.abort()
            raise

    def write(self, data):
        end = self._offset + len(data)
        if end > self._gib * GIB:
            self._let_go()
            self._gib = max(-(-end // GIB), self._gib + max(1, self._gib // 4))
            self._store.act(self._id, 'os-extend', new_size=self._gib)
            self._store.settle(self._id)
        if self._attachment is None:
            self._attachment = self._store.attach(self._id, 'rw')
        self._attachment.disk.write(data, self._offset)
        self._offset = end

    def _let_go(self):
        if self._attachment is not None:
            self._attachment.disk.flush()
            self._attachment.close()
            self._attachment = None
            self._store.settle(self._id)

    def commit(self):
        self._let_go()
        self._store.act(self._id, 'os-update_readonly_flag', readonly=True)
        self._store.request('POST', f'/volumes/{self._id}/metadata', {'metadata': {SIZE: str(self._offset)}})
        self._store.remember(self._key, self._id, self._offset)

    def abort(self):
        if self._attachment is not None:
            self._attachment.close()
            self._attachment = None
        self._store.drop(self._id)


class CinderReader:
    """The data of a blob as a file object."""

    def __init__(self, attachment, offset, size):
        self._attachment = attachment
        self._rest = b''
        self.size = size
        if attachment.disk.size < size:
            attachment.close()
            raise base.StoreUnavailable('the volume is smaller than its data')
        self._pieces = attachment.disk.read(offset, size)

    def read(self, size):
        """The next piece; b'' at the end."""
        data = self._rest or next(self._pieces, b'')
        self._rest = data[size:]
        return data[:size] if self._rest else data

    def close(self):
        """Let go of the volume."""
        self._attachment.close()
