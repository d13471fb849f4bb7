from kodiak.common import testing
from kodiak.compute import models, placement


def test_a_server_is_born_and_dies(cloud, boot, as_):
    server = boot()
    assert (server['status'], server['OS-EXT-STS:power_state']) == ('ACTIVE', 1), server
    assert server['flavor']['original_name'] and server['addresses'] == {}
    as_(testing.MEMBER).delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    as_(testing.MEMBER).get('/servers/' + server['id']).expect(404)
    row = cloud.row(server['id'])
    assert row['deleted'] and row['vm_state'] == 'deleted'
    assert cloud.all(models.guests) == []
    with cloud.db.read() as connection:
        assert placement.allocations(connection, server['id']) == {}


def test_a_cloud_without_block_storage_says_so(cloud, boot, image, as_, monkeypatch):
    class Session:
        request = None

        def get_endpoint(self, **kwargs):
            return None
    del cloud.app.clients._local['block-storage']
    monkeypatch.setattr(cloud.app.clients, '_session', Session())
    server = boot(imageRef='', block_device_mapping_v2=[{
        'boot_index': 0, 'source_type': 'image', 'destination_type': 'volume', 'uuid': image, 'volume_size': 1}])
    for _ in range(20):
        cloud.hurry()
        cloud.settle()
    server = as_(testing.MEMBER).get('/servers/' + server['id']).json['server']
    assert server['status'] == 'ERROR' and 'This cloud has no block-storage service' in server['fault']['message']
    with cloud.db.read() as connection:
        assert placement.allocations(connection, server['id']) == {}
