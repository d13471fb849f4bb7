import hashlib
import hmac

import pytest

from kodiak.common import testing
from kodiak.compute.api import metadata

SECRET = 'shared'


@pytest.fixture
def guest(cloud, boot):
    """``(server, client)``: the metadata service as one guest reaches it through the network's proxy."""
    cloud.conf.set_override('shared_secret', SECRET, group='metadata')
    server = boot(name='guest-1')
    signature = hmac.new(SECRET.encode(), server['id'].encode(), hashlib.sha256).hexdigest()
    return server, testing.Client(metadata.Metadata(cloud.app), headers={
        'X-Instance-ID': server['id'], 'X-Tenant-ID': testing.PROJECT, 'X-Instance-ID-Signature': signature})


def test_a_guest_reads_about_itself(guest):
    server, client = guest
    assert client.get('/openstack/latest/meta_data.json').expect(200).json['uuid'] == server['id']
    assert client.get('/latest/meta-data/hostname').expect(200).data == b'guest-1'
    client.get('/openstack/latest/nothing').expect(404)
    client.get('/latest/meta-data/hostname', headers={'X-Instance-ID-Signature': 'forged'}).expect(403)
    client.get('/latest/meta-data/hostname', headers={'X-Tenant-ID': testing.OTHER_PROJECT}).expect(404)
    client.post('/openstack/latest/meta_data.json', {}).expect(405)


def test_a_guest_posts_its_password_once_and_its_owner_reads_it(guest, as_):
    server, client = guest
    path = '/openstack/2013-10-17/password'
    assert client.get(path).expect(200).data == b''
    client.post(path, data=b'x' * 1025).expect(400)
    client.post(path, data=b'\xff').expect(400)
    client.post(path, data=b'sealed').expect(200)
    client.post(path, data=b'other').expect(409)
    assert client.get(path).expect(200).data == b'sealed'
    owner = as_(testing.MEMBER)
    assert owner.get(f'/servers/{server["id"]}/os-server-password').expect(200).json == {'password': 'sealed'}
    owner.delete(f'/servers/{server["id"]}/os-server-password').expect(204)
    client.post(path, data=b'other').expect(200)
