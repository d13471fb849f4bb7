"""Every route as every persona; the documents that follow from the declarations."""
from kodiak.common import cli, testing
from kodiak.common.api import openapi
from kodiak.storage_block import api as block_api


def test_personas(cloud, volume, member, admin):
    made = volume()
    snapshot = member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).json['snapshot']['id']
    backup = member.post('/backups', {'backup': {'volume_id': volume()['id']}}).json['backup']['id']
    kind = admin.get('/types').json['volume_types'][0]['id']
    cloud.settle()
    clients = {}

    def client_of(persona):
        if persona not in clients:
            clients[persona] = testing.Client(cloud.pipeline, cloud.identity.token(persona) if persona else None)
        return clients[persona]
    table = testing.check_personas(block_api.API, client_of, {
        'volume_id': made['id'], 'snapshot_id': snapshot, 'backup_id': backup, 'type_id': kind, 'project_id': testing.PROJECT})
    shown = table['GET', '/volumes/{volume_id}', None]
    assert (shown['admin'], shown['member'], shown['reader'], shown['other project'], shown['no role']) == (200, 200, 200, 404, 403)
    deleted = table['DELETE', '/volumes/{volume_id}', None]
    assert (deleted['reader'], deleted['other project']) == (403, 404)
    assert table['GET', '/os-services', None]['member'] == 403 and len(table) > 150


def test_documents():
    document = openapi.document(block_api.API)
    assert '/v3/volumes/{volume_id}' in document['paths']
    assert '"volume:get"' in cli.policy_sample([block_api.API])


def test_versions(cloud):
    nobody = testing.Client(cloud.pipeline)
    version = nobody.get('/').expect(200).json['versions'][0]
    assert version['id'] == 'v3.0' and version['version'] == '3.71' and version['min_version'] == '3.0'
    member = cloud.client(version=None)
    assert member.get('/volumes').expect(200).headers['OpenStack-API-Version'] == 'volume 3.0'
    assert cloud.client(version='3.99').get('/volumes').expect(406)
    member.get('/volumes/').expect(404)
    assert len(member.get('/extensions').expect(200).json['extensions']) > 20
    testing.Client(cloud.pipeline, cloud.identity.token(testing.MEMBER)).get(f'/{"b" * 32}/volumes').expect(400)
