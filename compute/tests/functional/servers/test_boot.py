from kodiak.common import testing


def test_a_server_is_born_and_dies(cloud, boot, as_):
    server = boot()
    assert (server['status'], server['OS-EXT-STS:power_state']) == ('ACTIVE', 1), server
    assert server['flavor']['original_name'] and server['addresses'] == {}
    as_(testing.MEMBER).delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    as_(testing.MEMBER).get('/servers/' + server['id']).expect(404)
    row = cloud.row(server['id'])
    assert row['deleted'] and row['vm_state'] == 'deleted'
    from kodiak.compute import models, placement
    assert cloud.all(models.guests) == []
    with cloud.db.read() as connection:
        assert placement.allocations(connection, server['id']) == {}
