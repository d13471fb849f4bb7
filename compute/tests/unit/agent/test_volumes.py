"""How volumes are named to libvirt, and what they are opened with."""
import xml.etree.ElementTree as ET

import pytest
from agent_shapes import spec, volume

from kodiak.common import client, config
from kodiak.compute.agent.keys import Keys
from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import domain, elements, volumes

# It is built with libvirt's headers, which are on hypervisors; the agent's other tests do without.
libvirt = pytest.importorskip('libvirt')
from kodiak.compute.drivers.libvirt import devices, secrets  # noqa: E402

CHAP = {'target_portal': '[2001:db8::1]:3260', 'target_iqn': 'iqn.x:v', 'target_lun': 1, 'auth_method': 'CHAP',
        'auth_username': 'u', 'auth_password': 'chap-secret', 'access_mode': 'rw', 'discard': True, 'encrypted': False,
        'qos_specs': None}


def iscsi(**more):
    return volume(attachment_id='attached', connection={'driver_volume_type': 'iscsi', 'data': {**CHAP, **more}})


def disk(given, **hw):
    return volumes.disk(given, hw, elements.Names({'vda'}), domain.Platform(initiator='iqn.y:one'))


def test_iscsi():
    element = disk(iscsi(qos_specs={'total_iops_sec': '100', 'read_bytes_sec_max': 5, 'unknown': '1', 'write_iops_sec': 'x'}))
    source = element.find('source')
    assert (element.get('type'), source.get('protocol'), source.get('name')) == ('network', 'iscsi', 'iqn.x:v/1')
    assert source.find('host').attrib == {'name': '2001:db8::1', 'port': '3260'}
    assert source.find('auth').get('username') == 'u'
    assert source.find('auth/secret').attrib == {'type': 'iscsi', 'uuid': elements.secret_uuid(iscsi(), 'iscsi')}
    assert source.find('initiator/iqn').get('name') == 'iqn.y:one'
    assert element.find('driver').attrib == {'name': 'qemu', 'type': 'raw', 'cache': 'none', 'discard': 'unmap'}
    assert {limit.tag: limit.text for limit in element.find('iotune')} == {'total_iops_sec': '100', 'read_bytes_sec_max': '5'}
    assert element.findtext('serial') == volume().id and element.find('target').get('dev') == 'vdb'
    text = ET.tostring(element, encoding='unicode')
    assert 'chap-secret' not in text and 'readonly' not in text and 'shareable' not in text


def test_rbd_and_nbd_and_what_guests_may_do():
    found = disk(volume(multiattach=True, connection={'driver_volume_type': 'rbd', 'data': {
        'name': 'pool/volume-1', 'hosts': ['10.0.0.1', '10.0.0.2'], 'ports': ['6789', '6789'], 'auth_enabled': True,
        'auth_username': 'cinder', 'secret_uuid': 'given', 'access_mode': 'ro', 'discard': False}}))
    source = found.find('source')
    assert source.get('name') == 'pool/volume-1'
    assert [host.get('name') for host in source.iterfind('host')] == ['10.0.0.1', '10.0.0.2']
    assert source.find('auth/secret').attrib == {'type': 'ceph', 'uuid': 'given'}
    assert found.find('readonly') is not None and found.find('shareable') is not None
    assert found.find('driver').get('discard') is None
    found = disk(volume(connection={'driver_volume_type': 'nbd', 'data': {'host': 'h', 'port': 1, 'export': 'e', 'tls': True}}))
    assert found.find('source').attrib == {'protocol': 'nbd', 'name': 'e', 'tls': 'yes'}
    assert found.find('source/reconnect').get('delay') == '30'
    assert [found.find('driver').get(name) for name in ('error_policy', 'rerror_policy')] == ['stop', 'stop']


def test_an_encrypted_volume_and_kinds_of_devices():
    found = disk(iscsi(encrypted=True))
    assert found.find('source/encryption').get('format') == 'luks'
    assert found.find('source/encryption/secret').get('uuid') == elements.secret_uuid(iscsi(), 'passphrase')
    given = iscsi()
    given.device_type = 'cdrom'
    found = disk(given)
    assert (found.get('device'), found.find('target').get('bus')) == ('cdrom', 'ide') and found.find('readonly') is not None
    given.device_type, given.bus = 'lun', 'scsi'
    assert disk(given).get('device') == 'lun'
    root = ET.fromstring(domain.build(spec(volumes=[given]), [], domain.Platform(), 'one', '/log'))
    assert root.find("devices/controller[@type='scsi']").get('model') == 'virtio-scsi'


def test_a_guest_that_boots_from_a_volume_has_the_hardware_of_its_image():
    given = spec(image=None, hardware={'hw_disk_bus': 'scsi', 'hw_vif_model': 'e1000'},
                 volumes=[volume(boot_index=0, device='/dev/sda')])
    root = ET.fromstring(domain.build(given, [], domain.Platform(), 'one', '/log'))
    assert root.find('devices/disk/target').attrib == {'dev': 'sda', 'bus': 'scsi'}
    assert root.find('devices/interface/model').get('type') == 'e1000'


class Libvirt:
    """The secrets of a libvirtd."""

    def __init__(self):
        self.secrets, self.seen = {}, {}

    def get(self):
        return self

    def secretDefineXML(self, xml, flags):
        return Secret(self, ET.fromstring(xml).findtext('uuid'), xml)

    def secretLookupByUUIDString(self, uuid):
        if uuid not in self.secrets:
            error = libvirt.libvirtError('none')
            error.err = (libvirt.VIR_ERR_NO_SECRET,)
            raise error
        return self.secrets[uuid]

    def listAllSecrets(self, flags):
        return list(self.secrets.values())


class Secret:
    def __init__(self, owner, uuid, xml):
        self.owner, self.uuid, self.xml = owner, uuid, xml
        owner.secrets[uuid] = self

    def setValue(self, value, flags):
        self.owner.seen[self.uuid] = value

    def undefine(self):
        del self.owner.secrets[self.uuid]

    def UUIDString(self):
        return self.uuid

    def XMLDesc(self):
        return self.xml


class Passphrases:
    def passphrase(self, volume_id):
        return b'passphrase of ' + volume_id.encode()


def test_secrets_live_while_a_disk_is_opened():
    host = Libvirt()
    made = secrets.Secrets(host, Passphrases())
    given = iscsi(encrypted=True)
    with made.opened([given, volume(2)]):
        assert {uuid: host.seen[uuid] for uuid in host.secrets} == {
            elements.secret_uuid(given, 'iscsi'): b'chap-secret',
            elements.secret_uuid(given, 'passphrase'): b'passphrase of ' + given.id.encode()}
        assert all(ET.fromstring(secret.xml).attrib == {'ephemeral': 'yes', 'private': 'yes'} for secret in host.secrets.values())
        with made.opened([given]):
            pass
        made.tidy()
        assert len(host.secrets) == 2
    assert host.secrets == {}
    Secret(host, 'left', '<secret><description>kodiak-iscsi of volume x</description></secret>')
    Secret(host, 'foreign', '<secret><description>of somebody else</description></secret>')
    made.tidy()
    assert list(host.secrets) == ['foreign']
    with pytest.raises(base.Fault, match='no way to ask'), secrets.Secrets(host, None).opened([given]):
        pass
    assert list(host.secrets) == ['foreign']


def test_a_key_is_asked_for_and_never_kept():
    asked, answers = [], {'/v3/own/volumes/v/encryption': {'encryption_key_id': 'k'},
                          '/v3/own/kodiak/keys/k': {'key': {'id': 'k', 'passphrase': 'c2VjcmV0'}}}

    def service(environ, start_response):
        import orjson
        asked.append(environ['PATH_INFO'])
        found = answers.get(environ['PATH_INFO'])
        start_response('200 OK' if found else '404 Not Found', [('Content-Type', 'application/json')])
        return [orjson.dumps(found or {})]
    clients = client.Clients(config.load('compute', {}, files=[]))
    clients.mount('block-storage', service, token='own')
    assert Keys(clients).passphrase('v') == b'secret' and len(asked) == 2
    with pytest.raises(base.Fault) as caught:
        Keys(clients).passphrase('gone')
    assert caught.value.final


class Domain:
    """A running domain with one volume of ``capacity`` bytes."""

    def __init__(self, given, capacity):
        self.given, self.capacity, self.resized = given, capacity, None

    def XMLDesc(self):
        return ('<domain><devices>' + ET.tostring(disk(self.given), encoding='unicode') + '</devices></domain>')

    def blockInfo(self, target):
        return [self.capacity, 0, 0]

    def blockResize(self, target, size, flags):
        self.resized = size


@pytest.mark.parametrize(('given', 'capacity', 'size', 'expected'), [
    (iscsi(), 1 << 30, 2, 2 << 30), (iscsi(), 2 << 30, 2, None), (iscsi(encrypted=True), (1 << 30) - 4096, 3, (3 << 30) - 4096),
    (iscsi(encrypted=True), 1 << 30, 3, 3 << 30)])
def test_growing(given, capacity, size, expected):
    running = Domain(given, capacity)
    devices.grow(Waits(), running, given, size)
    assert running.resized == expected


class Refused(libvirt.libvirtError):
    """QEMU's answer as long as it is not connected to the server that knows the new size."""

    def get_error_code(self):
        return libvirt.VIR_ERR_INTERNAL_ERROR


class Waits:
    """A connection whose waits end at once."""

    def wait(self, condition, timeout):
        return condition()


def nbd():
    return volume(connection={'driver_volume_type': 'nbd', 'data': {'host': 'h', 'port': 1, 'export': 'e'}})


def test_over_nbd_it_grows_when_qemu_has_connected_anew(monkeypatch):
    running, said = Domain(nbd(), 1 << 30), []
    resize = running.blockResize

    def answer(*args):
        if len(said) < 2:
            raise Refused('Cannot grow NBD nodes')
        resize(*args)
    running.blockResize = answer
    monkeypatch.setattr(devices.libvirt_qemu, 'qemuMonitorCommand', lambda domain, text, flags: said.append(text))
    devices.grow(Waits(), running, nbd(), 2)
    assert running.resized == 2 << 30
    assert all('qemu-io libvirt-' in text and 'read' in text for text in said)

    monkeypatch.setattr(devices, 'COPY_PATIENCE', 0)
    said.clear()
    with pytest.raises(base.Fault, match='does not say'):
        devices.grow(Waits(), running, nbd(), 2)


class Guest:
    """A guest whose storage fails some times before it answers."""

    def __init__(self, reason, failures):
        self.now, self.failures, self.resumed = [libvirt.VIR_DOMAIN_PAUSED, reason], failures, 0

    def state(self):
        return self.now

    def resume(self):
        self.resumed += 1
        if self.failures:
            self.failures -= 1
        else:
            self.now = [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED]


def test_a_guest_goes_on_when_its_storage_answers_again(monkeypatch):
    guest = Guest(libvirt.VIR_DOMAIN_PAUSED_IOERROR, 3)
    devices.resume(Waits(), guest)
    assert guest.resumed == 4 and guest.now[0] == libvirt.VIR_DOMAIN_RUNNING
    guest = Guest(libvirt.VIR_DOMAIN_PAUSED_USER, 0)
    devices.resume(Waits(), guest)
    assert guest.resumed == 1
    monkeypatch.setattr(devices, 'STORAGE_PATIENCE', 0)
    with pytest.raises(base.Fault) as caught:
        devices.resume(Waits(), Guest(libvirt.VIR_DOMAIN_PAUSED_IOERROR, 3))
    assert not caught.value.final
