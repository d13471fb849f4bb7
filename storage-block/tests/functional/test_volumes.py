"""Volumes: made, shown, listed, changed, deleted; and what goes wrong with them."""
import pytest

from kodiak.common import db, migrate, testing
from kodiak.storage_block import models


def test_the_database_is_what_the_models_say(tmp_path):
    database = db.Database(f'sqlite:///{tmp_path}/block.sqlite')
    migrate.sync(database, 'storage-block')
    assert migrate.differences(database, 'storage-block') == [] and migrate.ready(database, 'storage-block')


def test_made_shown_and_deleted(cloud, member, volume):
    made = member.post('/volumes', {'volume': {'size': 2, 'name': 'data', 'metadata': {'a': 'b'}}}).expect(202).json['volume']
    assert made['status'] == 'creating' and made['size'] == 2 and made['volume_type'] == '__DEFAULT__'
    cloud.settle()
    shown = member.get('/volumes/' + made['id']).expect(200).json['volume']
    assert shown['status'] == 'available' and shown['metadata'] == {'a': 'b'} and shown['bootable'] == 'false'
    assert shown['os-vol-tenant-attr:tenant_id'] == testing.PROJECT and 'os-vol-host-attr:host' not in shown
    assert cloud.client(testing.ADMIN).get('/volumes/' + made['id']).json['volume']['os-vol-host-attr:host'] == 'one@file#file'
    assert cloud.agent.there == {f'file/volume-{made["id"]}'}
    member.delete('/volumes/' + made['id']).expect(202)
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'deleting'
    cloud.settle()
    member.get('/volumes/' + made['id']).expect(404)
    assert cloud.agent.there == set()


def test_others_do_not_see_it(cloud, volume):
    made = volume()
    other = cloud.client(testing.OTHER)
    other.get('/volumes/' + made['id']).expect(404)
    other.delete('/volumes/' + made['id']).expect(404)
    assert other.get('/volumes').json['volumes'] == []
    cloud.client(testing.ADMIN).get('/volumes/' + made['id']).expect(200)
    cloud.client(testing.READER).delete('/volumes/' + made['id']).expect(403)


@pytest.mark.parametrize('fields, status', [
    ({'size': 0}, 400), ({'size': -1}, 400), ({'size': '#$%'}, 400), ({'size': ''}, 400), ({'size': None}, 400),
    ({'volume_type': 'none'}, 404), ({'snapshot_id': '9f1b3a5e-0000-4000-8000-000000000000'}, 404),
    ({'source_volid': '9f1b3a5e-0000-4000-8000-000000000000'}, 404), ({'imageRef': 'x'}, 400),
    ({'imageRef': '9f1b3a5e-0000-4000-8000-000000000000'}, 400), ({'availability_zone': 'mars'}, 400),
    ({'metadata': {'a': 'x' * 256}}, 400), ({'name': 'x' * 256}, 400), ({'multiattach': True}, 400), ({'size': 2000}, 413)])
def test_what_cannot_be_made(member, cloud, fields, status):
    answer = member.post('/volumes', {'volume': {'size': 1, **fields}}).expect(status)
    assert next(iter(answer.json.values()))['message']
    assert cloud.all(models.volumes) == [] and cloud.all(models.sagas) == []


def test_no_more_than_the_quota(cloud, member, volume):
    for _ in range(10):
        volume(settle=False)
    answer = member.post('/volumes', {'volume': {'size': 1}}).expect(413)
    assert answer.json['overLimit']['message'].startswith("Maximum number of volumes allowed (10) exceeded for quota 'volumes'.")


def test_from_an_image(cloud, volume, member):
    image = cloud.image.add(min_disk=2, hw_disk_bus='scsi')
    member.post('/volumes', {'volume': {'size': 1, 'imageRef': image}}).expect(400)
    made = volume(imageRef=image, size=2)
    assert made['bootable'] == 'true'
    kept = made['volume_image_metadata']
    assert kept['image_id'] == image and kept['hw_disk_bus'] == 'scsi' and kept['min_disk'] == '2'
    kind, args = cloud.agent.done[-1]
    assert kind == 'create_volume' and args['source']['image_id'] == image


def test_a_clone_is_made_beside_its_source(make_cloud):
    cloud = make_cloud(hosts={'one': [{**BACKEND, 'name': 'small', 'free_gb': 10.0}], 'two': [{**BACKEND, 'name': 'large'}]})
    member = cloud.client()
    source = member.post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    cloud.settle()
    cloud.agents['two'].backends[0]['free_gb'] = 1.5
    cloud.agents['two'].register()
    clone = member.post('/volumes', {'volume': {'source_volid': source}}).expect(202).json['volume']['id']
    cloud.settle()
    assert [row['backend'] for row in cloud.all(models.volumes)] == ['two@large', 'two@large']
    assert cloud.agents['two'].done[-1][1]['source'] == {'type': 'volume', 'volume_id': source, 'backend': 'large', 'size': 1}
    assert member.get('/volumes/' + clone).json['volume']['source_volid'] == source


def test_a_back_end_that_is_configured_away_gets_nothing_more(make_cloud):
    old = {**BACKEND, 'name': 'old', 'free_gb': 95.0}
    cloud = make_cloud(hosts={'one': [old, {**BACKEND, 'name': 'new'}]})
    agent, member = cloud.agents['one'], cloud.client()

    def made():
        volume = member.post('/volumes', {'volume': {'size': 1}}).expect(202).json['volume']['id']
        cloud.settle()
        return {row['id']: row['backend'] for row in cloud.all(models.volumes)}[volume]
    assert made() == 'one@old'
    agent.backends = agent.backends[1:]
    agent.register()
    assert [made(), made()] == ['one@new', 'one@new']
    agent.backends = [old, *agent.backends]
    agent.register()
    assert made() == 'one@old'


BACKEND = {'name': 'file', 'driver': 'file', 'protocol': 'iSCSI', 'vendor': 'Kodiak', 'zone': 'nova', 'total_gb': 100.0,
           'free_gb': 90.0, 'thin': True, 'max_over_subscription_ratio': 1.0, 'multiattach': True, 'error': None,
           'capabilities': {}}


def test_a_refusal_of_the_scheduler_is_told(cloud, admin, member):
    made = member.post('/volumes', {'volume': {'size': 1, 'availability_zone': 'nova'}}).json['volume']['id']
    cloud.agent.backends[0]['free_gb'] = 0.01
    cloud.agent.register()
    cloud.settle()
    assert member.get('/volumes/' + made).json['volume']['status'] == 'error'
    text = cloud.all(models.messages)[0]['text']
    assert 'none of 1 has room for 1 GiB' in text and 'The nearest has room for 0 GiB' in text
    member.delete('/volumes/' + made).expect(202)
    cloud.settle()
    assert cloud.all(models.volumes) == [] and cloud.all(models.messages) == []


def test_an_agent_that_fails_leaves_nothing(cloud, member):
    cloud.agent.fails['create_volume'] = 'The disk is full.'
    made = member.post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    cloud.settle()
    assert member.get('/volumes/' + made).json['volume']['status'] == 'error'
    assert cloud.all(models.messages)[0]['text'] == 'create volume from backend storage: The disk is full.'
    assert [kind for kind, _ in cloud.agent.done] == ['create_volume', 'delete_volume']
    assert cloud.all(models.volumes)[0]['backend'] is None


def test_lists(cloud, member, volume):
    ids = [volume(name=f'v{number}', metadata={'number': str(number)}, size=number + 1)['id'] for number in range(3)]
    listed = member.get('/volumes').expect(200).json['volumes']
    assert [one['name'] for one in listed] == ['v2', 'v1', 'v0'] and set(listed[0]) == {'id', 'name', 'links'}

    def names(query):
        return [one['name'] for one in member.get('/volumes/detail?' + query).expect(200).json['volumes']]
    assert names('name=v1') == ['v1'] and names('status=error') == [] and names('name~=v') == ['v2', 'v1', 'v0']
    assert names("metadata={'number': '1'}") == ['v1'] and names('sort=size:asc') == ['v0', 'v1', 'v2']
    assert names('sort_key=name&sort_dir=asc') == ['v0', 'v1', 'v2'] and names('availability_zone=nova&limit=2') == ['v2', 'v1']
    assert names('offset=1') == ['v1', 'v0'] and names('created_at=gt:2026-01-01T00:00:00&size=1') == ['v0']
    page = member.get('/volumes?limit=2').json
    assert page['volumes_links'][0]['href'].endswith(f'/v3/{testing.PROJECT}/volumes?limit=2&marker={ids[1]}')
    assert member.get(f'/volumes?limit=2&marker={ids[1]}').json['volumes'][0]['id'] == ids[0]
    assert member.get('/volumes?with_count=true&limit=1').json['count'] == 3
    member.get('/volumes?nonsense=1').expect(400)
    member.get('/volumes?limit=-1').expect(400)
    assert member.get('/volumes/summary').json['volume-summary'] == {
        'total_count': 3, 'total_size': 6, 'metadata': {'number': ['0', '1', '2']}}


@pytest.mark.parametrize('query', [
    'size=99999999999999999999', 'offset=99999999999999999999', 'offset=-1', 'limit=x', 'created_at=gt:0001-01-01T00:00:00%2B14:00',
    'created_at=gt:x', 'bootable=perhaps', 'metadata=x', "metadata=['a']", 'sort=nothing', 'sort=name:up'])
def test_lists_that_cannot_be(member, query):
    member.get('/volumes/detail?' + query).expect(400)


def test_what_reading_costs(cloud, member, volume):
    made = [volume()['id'] for _ in range(3)]
    with db.count_queries() as queries:
        member.get('/volumes/' + made[0]).expect(200)
    assert len(queries) == 1, queries
    with db.count_queries() as queries:
        member.get('/volumes/detail').expect(200)
    assert len(queries) == 1, queries


def test_changed(member, volume):
    made = volume()
    member.put('/volumes/' + made['id'], {'volume': {}}).expect(400)
    changed = member.put('/volumes/' + made['id'], {'volume': {'name': ' new ', 'description': 'text'}}).expect(200).json['volume']
    assert changed['name'] == 'new' and changed['description'] == 'text'


def test_metadata(member, volume):
    path = f'/volumes/{volume()["id"]}/metadata'
    assert member.post(path, {'metadata': {'a': '1', 'b': '2'}}).expect(200).json == {'metadata': {'a': '1', 'b': '2'}}
    assert member.put(path, {'metadata': {'c': '3'}}).expect(200).json == {'metadata': {'c': '3'}}
    assert member.put(path + '/d', {'meta': {'d': '4'}}).expect(200).json == {'meta': {'d': '4'}}
    member.put(path + '/e', {'meta': {'d': '4'}}).expect(400)
    assert member.get(path + '/d').expect(200).json == {'meta': {'d': '4'}}
    member.delete(path + '/d').expect(200)
    member.get(path + '/d').expect(404)
    assert member.get(path).json == {'metadata': {'c': '3'}}
    member.post(path, {'metadata': {'': 'x'}}).expect(400)
