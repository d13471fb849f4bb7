"""What a disk is opened with: libvirt secrets that live only while a guest is started or a disk is plugged.

libvirt reads a secret when it hands the disk to QEMU and never again, so none outlives that moment. They are ephemeral
(never on a disk of the host) and private (libvirt gives them to nobody but itself).
"""
import base64
import contextlib
import logging
import re
import threading
import xml.etree.ElementTree as ET

import libvirt

from kodiak.compute.drivers import base as drivers
from kodiak.compute.drivers.libvirt.elements import child, secret_uuid, text

LOG = logging.getLogger(__name__)
PREFIX = 'kodiak-'


class Secrets:
    """Of one host.

    :param connection: the :class:`~.connection.Connection`.
    :param keys: a :class:`~kodiak.compute.agent.keys.Keys`, for volumes that are encrypted; None where there is none.
    """

    def __init__(self, connection, keys):
        self.connection, self.keys = connection, keys
        self._lock = threading.Lock()
        self._used = {}         # uuid of a secret -> how many disks are being opened with it

    @contextlib.contextmanager
    def opened(self, volumes):
        """What these volumes are opened with is known to libvirt inside."""
        made = []
        try:
            for volume in volumes:
                for kind, value in self._values(volume):
                    made.append(self._define(volume, kind, value))
            yield
        finally:
            for secret in made:
                self._forget(secret)

    def _values(self, volume):
        data = volume.connection.get('data', {})
        kind = volume.connection.get('driver_volume_type')
        if kind == 'iscsi' and data.get('auth_password'):
            yield 'iscsi', data['auth_password'].encode()
        if kind == 'rbd' and data.get('keyring'):
            yield 'ceph', _decoded(data['keyring'])
        if data.get('encrypted'):
            if self.keys is None:
                raise drivers.Fault('volume-key', 'The host has no way to ask for the key of an encrypted volume.', final=True)
            yield 'passphrase', self.keys.passphrase(volume.id)

    def _define(self, volume, kind, value):
        name = secret_uuid(volume, kind)
        with self._lock:
            self._used[name] = self._used.get(name, 0) + 1
        element = ET.Element('secret', ephemeral='yes', private='yes')
        text(element, 'uuid', name)
        text(element, 'description', f'{PREFIX}{kind} of volume {volume.id}')
        usage = child(element, 'usage', type='volume' if kind == 'passphrase' else kind)
        tag = {'iscsi': 'target', 'ceph': 'name', 'passphrase': 'volume'}[kind]
        text(usage, tag, f'{PREFIX}{volume.attachment_id or volume.id}')
        try:
            secret = self.connection.get().secretDefineXML(ET.tostring(element, encoding='unicode'), 0)
            secret.setValue(value, 0)
        except BaseException:
            self._forget(name)
            raise
        return name

    def _forget(self, name):
        with self._lock:
            self._used[name] -= 1
            if self._used[name]:
                return
            del self._used[name]
            self._undefine(name)

    def _undefine(self, name):
        try:
            self.connection.get().secretLookupByUUIDString(name).undefine()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                LOG.warning('A secret could not be taken back: error %s', error.get_error_code())

    def tidy(self):
        """Take back what an agent left that was killed while a disk was being opened."""
        for secret in self.connection.get().listAllSecrets(libvirt.VIR_CONNECT_LIST_SECRETS_EPHEMERAL):
            try:
                ours = f'<description>{PREFIX}' in secret.XMLDesc()
            except libvirt.libvirtError:
                continue
            with self._lock:
                if ours and secret.UUIDString() not in self._used:
                    self._undefine(secret.UUIDString())


def _decoded(keyring):
    found = re.search(r'key\s*=\s*(\S+)', keyring)
    return base64.b64decode(found[1] if found else keyring)
