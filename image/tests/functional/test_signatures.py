"""Signed images: by each kind of key, through each way in; and what is refused."""
import base64
import datetime
import os
import types
import uuid

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa

from kodiak.common import testing
from kodiak.image import signatures

DATA = os.urandom(2 << 20) + b'end'
BYTES = {'Content-Type': 'application/octet-stream'}
KEYS = {
    'RSA-PSS': lambda: rsa.generate_private_key(65537, 2048), 'DSA': lambda: dsa.generate_private_key(1024),
    'ECC_SECP384R1': lambda: ec.generate_private_key(ec.SECP384R1()),
    'ECC_SECP521R1': lambda: ec.generate_private_key(ec.SECP521R1()),
}


def certified(key, days=(-1, 1)):
    """A certificate of a key, in PEM; ``days``: from when until when it is valid, from now."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'signer')])
    signer = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
    builder = builder.not_valid_before(now + datetime.timedelta(days[0])).not_valid_after(now + datetime.timedelta(days[1]))
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signature(key, data=DATA, method=hashes.SHA256):
    if isinstance(key, rsa.RSAPrivateKey):
        found = key.sign(data, padding.PSS(padding.MGF1(method()), padding.PSS.MAX_LENGTH), method())
    elif isinstance(key, dsa.DSAPrivateKey):
        found = key.sign(data, method())
    else:
        found = key.sign(data, ec.ECDSA(method()))
    return base64.b64encode(found).decode()


@pytest.fixture
def publish(cloud):
    """``publish(pem)``: a certificate among those of the service; returns its id."""
    def publish(pem):
        name = str(uuid.uuid4())
        folder = os.path.join(cloud.runtime.conf.state_path, 'image', 'certificates')
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name + '.pem'), 'wb') as file:
            file.write(pem)
        return name
    return publish


@pytest.fixture(scope='module')
def key():
    return KEYS['ECC_SECP384R1']()


@pytest.fixture
def signing(publish, key):
    """The properties of an image that is signed."""
    return dict(zip(signatures.PROPERTIES, (signature(key), 'SHA-256', 'ECC_SECP384R1', publish(certified(key))), strict=True))


@pytest.mark.parametrize('method', ['SHA-224', 'SHA-512'])
@pytest.mark.parametrize('kind', KEYS)
def test_data_with_its_signature_is_taken_other_data_is_not(cloud, member, helpers, publish, kind, method):
    key = KEYS[kind]()
    properties = dict(zip(signatures.PROPERTIES, (
        signature(key, method=signatures.METHODS[method]), method, kind, publish(certified(key))), strict=True))
    image = helpers.create(member, **properties)
    assert 'Signature' in helpers.upload(member, image['id'], DATA + b'x', 400).json['message']
    assert member.get('/v2/images/' + image['id']).json['status'] == 'queued'
    helpers.upload(member, image['id'], DATA)
    assert member.get(image['file']).data == DATA


@pytest.mark.parametrize(('changes', 'word'), [
    ({'img_signature': '*'}, 'base64'), ({'img_signature': 'eA=='}, 'failed'),
    ({'img_signature_hash_method': 'MD5'}, 'hash_method'), ({'img_signature_key_type': 'odd'}, 'key_type'),
    ({'img_signature_key_type': 'RSA-PSS'}, 'another type'), ({'img_signature_key_type': 'ECC_SECP521R1'}, 'another type'),
    ({'img_signature_certificate_uuid': str(uuid.uuid4())}, 'certificate'),
    ({'img_signature_certificate_uuid': '../../../etc/x'}, 'UUID'),
])
def test_what_is_no_signature(member, helpers, signing, changes, word):
    image = helpers.create(member, **{**signing, **changes})
    assert word in helpers.upload(member, image['id'], DATA, 400).json['message']


def test_certificates_have_their_time(member, helpers, signing, publish, key):
    for days in ((-2, -1), (1, 2)):
        image = helpers.create(member, **{**signing, 'img_signature_certificate_uuid': publish(certified(key, days))})
        assert 'not valid now' in helpers.upload(member, image['id'], DATA, 400).json['message']
    image = helpers.create(member, **{**signing, 'img_signature_certificate_uuid': publish(b'no certificate')})
    helpers.upload(member, image['id'], DATA, 400)


def test_three_of_four_are_no_signature(member, helpers, signing):
    del signing['img_signature']
    helpers.upload(member, helpers.create(member, **signing)['id'], b'anything')


@pytest.mark.parametrize('good', [True, False])
def test_imports(make_cloud, helpers, signing, publish, good):
    cloud = make_cloud(imports__convert_to='qcow2', imports__unpack=True)
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member, **signing)
    path = '/v2/images/' + image['id']
    member.put(path + '/stage', data=DATA if good else DATA[:-1], headers=BYTES).expect(204)
    member.post(path + '/import', {'method': {'name': 'glance-direct', 'convert_to': 'vmdk'}}).expect(400)
    member.post(path + '/import', {'method': {'name': 'glance-direct'}}).expect(202)
    cloud.runtime.background[1].run_due()
    shown, task = member.get(path).json, member.get(path + '/tasks').json['tasks'][0]
    if good:
        assert shown['status'] == 'active' and shown['disk_format'] == 'raw' and member.get(image['file']).data == DATA
    else:
        assert shown['status'] == 'queued' and 'Signature verification' in task['message']


def test_certificates_in_a_key_manager(cloud, member, helpers, signing, key):
    asked = []

    class Session:
        root = 'http://keys/v1'

        def get_endpoint(self, service_type, **_):
            return self.root if service_type == 'key-manager' else None

        def get(self, url, headers, **_):
            asked.append((url, headers.get('X-Auth-Token') is not None))
            there = url.endswith('00000000-0000-0000-0000-000000000001/payload')
            return types.SimpleNamespace(status_code=200 if there else 404, content=certified(key))
    cloud.runtime.clients = types.SimpleNamespace(session=Session)
    for last, status in (('1', 204), ('2', 400)):
        name = '00000000-0000-0000-0000-00000000000' + last
        helpers.upload(member, helpers.create(member, **{**signing, 'img_signature_certificate_uuid': name})['id'], DATA, status)
        assert asked[-1] == (f'http://keys/v1/secrets/{name}/payload', True)
    Session.root = None
    image = helpers.create(member, **{**signing, 'img_signature_certificate_uuid': str(uuid.uuid4())})
    helpers.upload(member, image['id'], DATA, 400)
