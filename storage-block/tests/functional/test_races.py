"""Requests at the same moment: no more than a quota, no more than there is room for, no volume attached twice."""
import concurrent.futures
import uuid

from kodiak.common import testing
from kodiak.storage_block import models


def together(function, count):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        return sorted(pool.map(lambda _: function().status, range(count)))


def test_no_more_than_the_quota(cloud):
    clients = [cloud.client() for _ in range(15)]
    statuses = together(lambda: clients.pop().post('/volumes', {'volume': {'size': 1}}), 15)
    assert statuses == [202] * 10 + [413] * 5 and len(cloud.all(models.volumes)) == 10


def test_no_more_than_there_is_room_for(cloud):
    cloud.agent.backends[0].update(free_gb=5.0, total_gb=5.0, max_over_subscription_ratio=1.0)
    cloud.agent.register()
    clients = [cloud.client() for _ in range(4)]
    assert together(lambda: clients.pop().post('/volumes', {'volume': {'size': 2}}), 4) == [202] * 4
    cloud.settle()
    assert sorted(row['status'] for row in cloud.all(models.volumes)) == ['available', 'available', 'error', 'error']


def test_attached_once(cloud, volume):
    made = volume()
    clients = [cloud.client(testing.SERVICE) for _ in range(6)]
    for one in clients:
        one._prefix = '/' + testing.PROJECT
    statuses = together(lambda: clients.pop().post('/attachments', {'attachment': {
        'volume_uuid': made['id'], 'instance_uuid': str(uuid.uuid4())}}), 6)
    assert statuses == [200] + [400] * 5 and len(cloud.all(models.attachments)) == 1


def test_deleted_once(cloud, volume):
    made = volume()
    clients = [cloud.client() for _ in range(4)]
    assert together(lambda: clients.pop().delete('/volumes/' + made['id']), 4) == [202] + [400] * 3
    cloud.settle()
    assert cloud.all(models.volumes) == []
