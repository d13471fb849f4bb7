"""Every operation with requests that fit the OpenAPI document and others that don't: no answer of 500, none outside its schema."""
import uuid

import hypothesis.strategies as st
import pytest

from kodiak.common import fuzz_testing, testing
from kodiak.image import imports
from kodiak.image.api import patch

_TEXT = st.text(max_size=40)
_SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _TEXT)
_JSON = st.recursive(_SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
                     max_leaves=6)
_LOCATION = st.fixed_dictionaries({
    'url': st.sampled_from(['http://127.0.0.1/x', 'file:///etc/passwd', 'swift://a/b', 'http://[::1]:80/', 'rbd://x', '']),
    'metadata': st.dictionaries(_TEXT, _JSON, max_size=2)}, optional={'validation_data': _JSON})
_NAMES = ['name', 'tags', 'visibility', 'protected', 'min_disk', 'min_ram', 'owner', 'disk_format', 'container_format', 'locations',
          'locations/0', 'locations/-', 'locations/99999999999999999999', 'locations/\u00b2', 'id', 'status', 'size', 'checksum',
          'os_hidden', 'kernel_id', 'os_glance_x', 'deleted', 'colour', 'a~1b', 'a~0b', 'a~2', '', ' ', 'x' * 300, 'img_signature']
_OPERATION = st.fixed_dictionaries({}, optional={
    'op': st.one_of(st.sampled_from(patch.OPERATIONS), _JSON),
    'path': st.one_of(st.sampled_from(_NAMES).map('/'.__add__), _TEXT.map('/'.__add__), _JSON),
    'value': st.one_of(_JSON, _LOCATION, st.lists(_LOCATION, max_size=2), st.lists(_TEXT, max_size=3), st.sampled_from([
        'public', 'private', 'shared', 'community', 'raw', 'qcow2', 'bare', 2 ** 70, -1, 2 ** 31]))})
_URIS = st.sampled_from(['http://127.0.0.1/x', 'http://localhost:22/', 'file:///etc/passwd', 'http://', 'http://[', 'ftp://x',
                         '//'])
_METHOD = st.fixed_dictionaries({'name': st.one_of(st.sampled_from(imports.METHODS), _JSON)}, optional={
    'uri': st.one_of(_URIS, _JSON), 'glance_image_id': _JSON, 'glance_region': _JSON,
    'convert_to': st.one_of(st.sampled_from(['qcow2', 'raw']), _JSON)})
_IMPORT = st.fixed_dictionaries({'method': _METHOD}, optional={
    'stores': st.one_of(st.lists(st.sampled_from(['file', 'web', 'x']), max_size=3), _JSON), 'all_stores': _JSON,
    'all_stores_must_succeed': _JSON})
_IMAGE = st.dictionaries(st.sampled_from([name for name in _NAMES if '/' not in name]), st.one_of(
    _JSON, st.sampled_from(['raw', 'bare', 'private', 'community'])), max_size=4)
BODIES = {
    ('POST', '/v2/images'): _IMAGE,
    ('PATCH', '/v2/images/{image_id}'): st.lists(_OPERATION, min_size=1, max_size=3),
    ('POST', '/v2/images/{image_id}/import'): _IMPORT,
    ('POST', '/v2/images/{image_id}/locations'): st.fixed_dictionaries({'url': st.one_of(_URIS, _JSON)},
                                                                        optional={'validation_data': _JSON}),
    ('POST', '/v2/tasks'): st.fixed_dictionaries({'type': st.just('import'), 'input': st.fixed_dictionaries({
        'import_from': _URIS, 'import_from_format': st.sampled_from(['raw', 'x']), 'image_properties': _IMAGE})}),
}
_NUMBERS = st.one_of(st.integers().map(str), st.sampled_from(['', '-1', '1e3', '\u00b2', '9' * 30]))
_WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
_RANGE = st.one_of(_WORD.map('bytes='.__add__), st.tuples(_NUMBERS, _NUMBERS).map('-'.join).map('bytes='.__add__), _WORD)
HEADERS = {
    ('GET', '/v2/images/{image_id}/file'): st.fixed_dictionaries({}, optional={
        'Range': _RANGE, 'If-Range': _WORD, 'If-None-Match': _WORD}),
    ('PUT', '/v2/images/{image_id}/file'): st.fixed_dictionaries({}, optional={
        'X-Image-Meta-Store': _WORD, 'x-openstack-image-size': st.one_of(st.just('3'), _WORD)}),
    ('PUT', '/v2/images/{image_id}/stage'): st.fixed_dictionaries({}, optional={'x-openstack-image-size': _WORD}),
    ('DELETE', '/v2/cache'): st.fixed_dictionaries({}, optional={'x-image-cache-clear-target': _WORD}),
}


def _image(client, data=None):
    image = client.post('/v2/images', {'name': 'x', 'disk_format': 'raw', 'container_format': 'bare', 'tags': ['t']}).json
    if data:
        client.put(image['file'], data=data, headers={'Content-Type': 'application/octet-stream'}).expect(204)
        client.post(f"/v2/images/{image['id']}/members", {'member': testing.OTHER_PROJECT}).expect(200)
    return image['id']


def _values(admin, client):
    """What exists: an image without and one with data and a member, a namespace with parts."""
    def make(path, names):
        found = {'member_id': [testing.OTHER_PROJECT], 'tag': ['t'], 'name': ['p', 'o', 'OS::Glance::Image'],
                 'store_id': ['file', 'web']}
        if 'image_id' in names:
            full = _image(client, b'data')
            found['image_id'] = [_image(client), full, full.upper()]
        if 'namespace' in names:
            found['namespace'] = [uuid.uuid4().hex]
            admin.post('/v2/metadefs/namespaces', {
                'namespace': found['namespace'][0], 'visibility': 'public', 'properties': {'p': {'title': 'p', 'type': 'string'}},
                'objects': [{'name': 'o'}], 'tags': [{'name': 't'}],
                'resource_type_associations': [{'name': 'OS::Glance::Image'}]}).expect(201)
        return found
    return make


@pytest.mark.parametrize('persona', [testing.ADMIN, testing.MEMBER], ids=['admin', 'member'])
def test_no_request_breaks_the_api(make_cloud, tmp_path, persona):
    cloud = make_cloud(cache__path=str(tmp_path / 'cache'), stores__show_locations=True)
    values = _values(cloud.client(testing.ADMIN), cloud.client(persona))
    found = fuzz_testing.run(cloud.application, cloud.identity.token(persona), values, BODIES, HEADERS,
                             media=(patch.MEDIA_20, patch.MEDIA_21))
    assert not found, '\n\n'.join(found)
