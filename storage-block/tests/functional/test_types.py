"""Volume types: specs, access, encryption, QoS, defaults; and what follows for volumes."""
import base64
import os
import shutil

import pytest

from kodiak.common import errors, testing
from kodiak.storage_block import cmd, keys, models, types


def make(admin, **fields):
    return admin.post('/types', {'volume_type': {'name': 'fast', **fields}}).expect(200).json['volume_type']


def test_types(cloud, admin, member):
    made = make(admin, description='d', extra_specs={'vendor_name': 'Kodiak'}, **{'os-volume-type-access:is_public': True})
    path = '/types/' + made['id']
    shown = admin.get(path).expect(200).json['volume_type']
    assert shown['extra_specs'] == {'vendor_name': 'Kodiak'} and shown['qos_specs_id'] is None and shown['is_public']
    assert member.get(path).json['volume_type']['extra_specs'] == {}
    for name in ('', ' '):
        admin.post('/types', {'volume_type': {'name': name}}).expect(400)
    admin.post('/types', {'volume_type': {'name': 'fast'}}).expect(409)
    assert [one['name'] for one in member.get('/types').json['volume_types']] == ['fast', '__DEFAULT__']
    assert member.get('/types/default').json['volume_type']['name'] == '__DEFAULT__'
    assert admin.put(path, {'volume_type': {'name': 'slow', 'is_public': False}}).expect(200).json['volume_type']['name'] == 'slow'
    member.get(path).expect(404)
    admin.put(path, {'volume_type': {}}).expect(400)
    member.delete(path).expect(404)
    admin.delete(path).expect(202)
    admin.get(path).expect(404)


def test_extra_specs(admin):
    path = f'/types/{make(admin)["id"]}/extra_specs'
    assert admin.post(path, {'extra_specs': {'a': 'b', 'c': 'd'}}).expect(200).json == {'extra_specs': {'a': 'b', 'c': 'd'}}
    assert admin.put(path + '/a', {'a': 'e'}).expect(200).json == {'a': 'e'}
    for key, body in (('a', None), ('a', {'b': 'c'}), ('a', {'a': '1', 'b': '2'})):
        admin.put(f'{path}/{key}', body).expect(400)
    for body in ({'extra_specs': None}, {'extra_specs': ['a']}, {}):
        admin.post(path, body).expect(400)
    assert admin.get(path + '/a').json == {'a': 'e'}
    admin.delete(path + '/a').expect(202)
    admin.get(path + '/a').expect(404)
    admin.delete(path + '/a').expect(404)


def test_who_may_use_a_private_type(admin, member, volume):
    made = make(admin, **{'os-volume-type-access:is_public': False})
    path = '/types/' + made['id']
    member.post('/volumes', {'volume': {'size': 1, 'volume_type': 'fast'}}).expect(404)
    admin.post(path + '/action', {'addProjectAccess': {'project': testing.PROJECT}}).expect(202)
    admin.post(path + '/action', {'addProjectAccess': {'project': testing.PROJECT}}).expect(409)
    assert admin.get(path + '/os-volume-type-access').json['volume_type_access'] == [
        {'volume_type_id': made['id'], 'project_id': testing.PROJECT}]
    assert volume(volume_type='fast')['volume_type'] == 'fast'
    admin.delete(path).expect(400)
    admin.post(path + '/action', {'removeProjectAccess': {'project': testing.PROJECT}}).expect(202)
    admin.post(path + '/action', {'removeProjectAccess': {'project': testing.PROJECT}}).expect(404)


def test_the_default_type_of_a_project(admin, member, volume):
    make(admin)
    path = '/default-types/' + testing.PROJECT
    admin.get(path).expect(404)
    admin.put(path, {'default_type': {'volume_type': 'fast'}}).expect(200)
    assert admin.get('/default-types').json['default_types'][0]['project_id'] == testing.PROJECT
    assert volume()['volume_type'] == 'fast' and member.get('/types/default').json['volume_type']['name'] == 'fast'
    admin.delete(path).expect(204)
    assert volume()['volume_type'] == '__DEFAULT__'


def test_quality_of_service(admin, volume):
    made = admin.post('/qos-specs', {'qos_specs': {'name': 'q', 'consumer': 'front-end', 'total_iops_sec': '500'}}).expect(200)
    qos = made.json['qos_specs']
    path = '/qos-specs/' + qos['id']
    assert qos['specs'] == {'total_iops_sec': '500'} and qos['consumer'] == 'front-end'
    admin.post('/qos-specs', {'qos_specs': {'name': 'q'}}).expect(409)
    assert admin.put(path, {'qos_specs': {'read_iops_sec': '10'}}).expect(200).json == {'qos_specs': {'read_iops_sec': '10'}}
    admin.put(path + '/delete_keys', {'keys': ['read_iops_sec']}).expect(202)
    admin.put(path + '/delete_keys', {'keys': ['read_iops_sec']}).expect(400)
    kind = make(admin)
    admin.get(f'{path}/associate?vol_type_id={kind["id"]}').expect(202)
    assert admin.get(path + '/associations').json['qos_associations'] == [
        {'association_type': 'volume_type', 'name': 'fast', 'id': kind['id']}]
    assert admin.get('/types/' + kind['id']).json['volume_type']['qos_specs_id'] == qos['id']
    admin.delete(path).expect(400)
    admin.get(f'{path}/disassociate?vol_type_id={kind["id"]}').expect(202)
    admin.get(path + '/disassociate_all').expect(202)
    assert [one['name'] for one in admin.get('/qos-specs').json['qos_specs']] == ['q']
    admin.delete(path).expect(202)
    admin.get(path).expect(404)


ENCRYPTION = {'provider': 'luks', 'cipher': 'aes-xts-plain64', 'key_size': 256, 'control_location': 'front-end'}


def test_encryption_of_a_type(admin):
    path = f'/types/{make(admin)["id"]}/encryption'
    assert admin.get(path).expect(200).json == {}
    made = admin.post(path, {'encryption': ENCRYPTION}).expect(200).json['encryption']
    admin.post(path, {'encryption': ENCRYPTION}).expect(400)
    assert admin.get(path + '/cipher').json == {'cipher': 'aes-xts-plain64'}
    admin.put(f'{path}/{made["encryption_id"]}', {'encryption': {'key_size': 128}}).expect(200)
    assert admin.get(path).json['key_size'] == 128
    admin.delete(f'{path}/{made["encryption_id"]}').expect(202)
    assert admin.get(path).json == {}


def test_an_encrypted_volume(cloud, admin, member, volume):
    kind = make(admin)
    admin.post(f'/types/{kind["id"]}/encryption', {'encryption': ENCRYPTION}).expect(200)
    made = volume(volume_type='fast')
    assert made['encrypted'] is True
    told = cloud.agent.done[-1][1]['encryption']
    assert told['provider'] == 'luks' and told['key_size'] == 256
    said = member.get(f'/volumes/{made["id"]}/encryption').expect(200).json
    assert said['encryption_key_id'] == told['key_id'] and said['control_location'] == 'front-end'
    assert made['encryption_key_id'] == told['key_id'] and 'encryption_key_id' not in volume()
    older = cloud.client(version='3.63').get('/volumes/' + made['id']).json['volume']
    assert older['encrypted'] and 'encryption_key_id' not in older
    key = cloud.agent.conductor.call('key', host='one', key_id=told['key_id'])['passphrase']
    with cloud.db.read() as connection:
        assert base64.b64decode(key) == keys.passphrase(connection, cloud.conf, told['key_id'])
        assert key not in str(cloud.all(models.keys)) and base64.b64decode(key).decode() not in str(cloud.all(models.keys))
    for persona in (testing.MEMBER, testing.ADMIN):
        cloud.client(persona).get('/kodiak/keys/' + told['key_id']).expect(403)
    member.get('/kodiak/keys/' + told['key_id'], headers={'X-Service-Token': cloud.identity.token(testing.MEMBER)}).expect(403)
    beside = {'X-Service-Token': cloud.identity.token(testing.SERVICE)}
    member.get('/kodiak/keys/' + told['key_id'], headers=beside).expect(200)
    assert cloud.client(testing.SERVICE).get('/kodiak/keys/' + told['key_id']).json['key']['passphrase'] == key
    clone = volume(source_volid=made['id'])
    assert clone['encrypted'] and cloud.agent.done[-1][1]['encryption']['key_id'] != told['key_id']
    member.post('/volumes', {'volume': {'source_volid': made['id'], 'volume_type': '__DEFAULT__'}}).expect(400)
    for one in (made, clone):
        member.delete('/volumes/' + one['id']).expect(202)
    cloud.settle()
    assert cloud.all(models.keys) == []


def test_what_encryption_is_not_offered_is_refused(admin, member):
    path = f'/types/{make(admin)["id"]}/encryption'
    made = admin.post(path, {'encryption': {**ENCRYPTION, 'cipher': 'aes-cbc-essiv:sha256'}}).expect(200).json['encryption']
    for changes in ({'cipher': 'aes-cbc-essiv:sha256'}, {'cipher': None, 'key_size': 128}, {'key_size': 256, 'provider': 'plain'}):
        admin.put(f'{path}/{made["encryption_id"]}', {'encryption': changes}).expect(200)
        told = member.post('/volumes', {'volume': {'size': 1, 'volume_type': 'fast'}}).expect(400)
        assert 'offered is luks with aes-xts-plain64' in told.json['badRequest']['message']
    admin.put(f'{path}/{made["encryption_id"]}', {'encryption': {'provider': 'LuksEncryptor'}}).expect(200)
    member.post('/volumes', {'volume': {'size': 1, 'volume_type': 'fast'}}).expect(202)


def test_limits_for_each_gib(cloud, admin, volume):
    specs = {'read_iops_sec_per_gb': '10', 'write_iops_sec_per_gb': '10', 'write_iops_sec_per_gb_min': '100',
             'total_bytes_sec': '5', 'total_iops_sec_per_gb': 'many'}
    qos = admin.post('/qos-specs', {'qos_specs': {'name': 'q', 'consumer': 'both', **specs}}).expect(200).json['qos_specs']
    kind = make(admin)
    admin.get(f'/qos-specs/{qos["id"]}/associate?vol_type_id={kind["id"]}').expect(202)
    with cloud.db.read() as connection:
        found = types.get(connection, kind['id'])
        assert types.qos_of(connection, found, 3) == {'read_iops_sec': '30', 'write_iops_sec': '100', 'total_bytes_sec': '5'}


def test_a_node_makes_no_second_key_of_encrypted_volumes(cloud, tmp_path, monkeypatch, capsys):
    with cloud.db.write() as connection:
        key_id = keys.make(connection, cloud.conf, 'owner')
    (tmp_path / 'second.conf').write_text(f'[DEFAULT]\nstate_path = {tmp_path}/second\n[database]\nconnection = {cloud.db.url}\n')
    conf = cmd.load_conf(['--config-file', str(tmp_path / 'second.conf')])
    with pytest.raises(errors.Unavailable), cloud.db.write() as connection:
        keys.make(connection, conf, 'owner')
    with pytest.raises(errors.Unavailable), cloud.db.read() as connection:
        keys.passphrase(connection, conf, key_id)
    monkeypatch.setattr('sys.argv', ['kodiak-storage-block', '--config-file', str(tmp_path / 'second.conf'), 'key-file'])
    with pytest.raises(SystemExit) as ended:
        cmd.admin()
    assert ended.value.code == 1 and 'another node' in capsys.readouterr().err
    os.makedirs(os.path.dirname(keys.path_of(conf)))
    shutil.copy2(keys.path_of(cloud.conf), keys.path_of(conf))
    with cloud.db.read() as connection:
        assert keys.passphrase(connection, conf, key_id) == keys.passphrase(connection, cloud.conf, key_id)
    with pytest.raises(SystemExit) as ended:
        cmd.admin()
    assert not ended.value.code and capsys.readouterr().out == keys.path_of(conf) + '\n'
