"""The Swift API as python-swiftclient calls it, over HTTP."""
import io
import os

import pytest
from swiftclient import client
from swiftclient.service import SwiftService, SwiftUploadObject


@pytest.fixture
def url(call, serve):
    return serve(call.application) + '/auth/v1.0'


@pytest.fixture
def connection(url):
    made = client.Connection(url, 'test:tester', 'testing', retries=0)
    yield made
    made.close()


def test_the_daily_round(connection):
    connection.put_container('c')
    etag = connection.put_object('c', 'ä b', io.BytesIO(b'hello'), content_length=5, headers={'X-Object-Meta-Colour': 'red'})
    headers, body = connection.get_object('c', 'ä b')
    assert (body, headers['etag'], headers['x-object-meta-colour']) == (b'hello', etag, 'red')
    connection.copy_object('c', 'ä b', 'c/copy')
    assert [row['name'] for row in connection.get_container('c')[1]] == ['copy', 'ä b']
    connection.post_object('c', 'copy', {'X-Object-Meta-Colour': 'blue'})
    assert connection.head_object('c', 'copy')['x-object-meta-colour'] == 'blue'
    for name in ('ä b', 'copy'):
        connection.delete_object('c', name)
    connection.delete_container('c')
    with pytest.raises(client.ClientException) as problem:
        connection.head_container('c')
    assert problem.value.http_status == 404


def test_versions(connection):
    connection.put_container('c', {'X-Versions-Enabled': 'true'})
    answers = []
    for body in (b'one', b'two'):
        made = {}
        connection.put_object('c', 'o', body, response_dict=made)
        answers.append(made['headers']['x-object-version-id'])
    assert connection.get_object('c', 'o', query_string=f'version-id={answers[0]}')[1] == b'one'
    rows = connection.get_container('c', query_string='versions')[1]
    assert [(row['version_id'], row['is_latest']) for row in rows] == [(answers[1], True), (answers[0], False)]


@pytest.mark.parametrize('slo', [True, False])
def test_a_file_in_segments(url, tmp_path, slo):
    body = os.urandom(2500000)
    (tmp_path / 'big').write_bytes(body)
    options = {'auth': url, 'user': 'test:tester', 'key': 'testing', 'auth_version': '1.0', 'segment_size': 1000000, 'use_slo': slo,
               'retries': 0}
    with SwiftService(options) as service:
        results = list(service.upload('c', [SwiftUploadObject(str(tmp_path / 'big'), object_name='big')]))
        assert all(result['success'] for result in results), results
        found, = service.download('c', ['big'], {'out_file': str(tmp_path / 'back')})
        assert found['success'], found
        assert (tmp_path / 'back').read_bytes() == body
        assert all(result['success'] for result in service.delete('c', ['big']))
        assert [row['name'] for page in service.list('c_segments') for row in page['listing']] == []
