"""Texts at the edge of what numbers, times and places are: each has an answer that names what is wrong."""
import urllib.parse

import pytest

from kodiak.common import testing

BYTES = {'Content-Type': 'application/octet-stream'}
PATCH = {'Content-Type': 'application/openstack-images-v2.1-json-patch'}
#: Longer than Python takes for a number; and a digit that is none.
LONG, SQUARE = '9' * 5000, '\u00b2'


@pytest.mark.parametrize('asked', [f'bytes=0-{LONG}', f'bytes=-{LONG}', f'bytes={LONG}-', f'bytes={SQUARE}-', 'bytes=-0',
                                   'bytes=4-'])
def test_ranges(member, helpers, asked):
    image = helpers.create(member)
    helpers.upload(member, image['id'], b'data')
    member.get(image['file'], headers={'Range': asked}).expect(416)
    empty = helpers.create(member)
    helpers.upload(member, empty['id'], b'')
    member.get(empty['file'], headers={'Range': asked}).expect(416)
    assert member.get(empty['file']).expect(200).data == b''


@pytest.mark.parametrize('size', [LONG, SQUARE, '-1', '', ' 1', '0x1'])
@pytest.mark.parametrize('path', ['file', 'stage'])
def test_announced_sizes(member, helpers, path, size):
    image = helpers.create(member)
    member.put(f"/v2/images/{image['id']}/{path}", data=b'x', headers={**BYTES, 'x-openstack-image-size': size}).expect(400)
    assert member.get('/v2/images/' + image['id']).json['status'] == 'queued'


@pytest.mark.parametrize('moment', ['gt:9999-12-31T23:59:59Z', '9999-12-31T23:59:59', 'lt:0001-01-01T00:00:00%2B14:00',
                                    'neq:9999-12-31T23:59:59-12:00', 'gt:' + LONG, 'lte:0000-01-01'])
@pytest.mark.parametrize('name', ['created_at', 'updated_at'])
def test_times(member, name, moment):
    assert name in member.get(f'/v2/images?{name}={moment}').expect(400).json['message']


@pytest.mark.parametrize('query', [f'size_min={LONG}', 'size_max=%C2%B2', f'limit={LONG}', 'limit=%C2%B2', 'min_ram=-1',
                                   f'min_disk={2 ** 63}', 'page_reverse=%C2%B2'])
def test_numbers(member, query):
    member.get('/v2/images?' + query).expect(400)


@pytest.mark.parametrize('place', [LONG, '%C2%B2', SQUARE, '\u0663', '7'])
@pytest.mark.parametrize('operation', ['add', 'remove'])
def test_places_of_locations(make_cloud, helpers, monkeypatch, operation, place):
    cloud = make_cloud(stores__show_locations=True, stores__enabled=['file:file', 'web:http'])
    admin = cloud.client(testing.ADMIN)
    image = helpers.create(admin)
    helpers.upload(admin, image['id'], b'data')
    location = {'url': 'http://example.org/x', 'metadata': {}}
    admin.patch('/v2/images/' + image['id'], [{'op': 'add', 'path': '/locations/-', 'value': location}], headers=PATCH).expect(200)
    change = {'op': operation, 'path': '/locations/' + place, 'value': {**location, 'url': 'http://example.org/y'}}
    admin.patch('/v2/images/' + image['id'], [change], headers=PATCH).expect(400)


def test_names_that_are_not_quite_the_same(member, helpers):
    names = ['a', 'A', 'a ', '\u00e1', 'a\u0301', 'ss', '\u00df', '\U0001f600']
    image = helpers.create(member, tags=names, **{name: name + 'x' for name in names})
    shown = member.get('/v2/images/' + image['id']).json
    assert shown['tags'] == names and [shown[name] for name in names] == [name + 'x' for name in names]
    for name in names:
        quoted = urllib.parse.quote(name)
        assert len(member.get(f'/v2/images?{quoted}={quoted}x&tag={quoted}').json['images']) == 1
        assert member.get(f'/v2/images?{quoted}={quoted}X').json['images'] == []
        member.post(f"/v2/images/{image['id']}/members", {'member': name}).expect(200)
