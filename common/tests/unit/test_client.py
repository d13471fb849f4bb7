"""REST between services, without sockets: tokens, request ids, retries, faults in our own words."""
import orjson
import pytest

from kodiak.common import client, config, context, errors


class App:
    """A WSGI application that answers what it is told to and remembers what it was asked."""

    def __init__(self):
        self.answers, self.asked = [], []

    def __call__(self, environ, start_response):
        self.asked.append(environ)
        environ['body'] = environ['wsgi.input'].read()
        status, body = self.answers.pop(0) if self.answers else ('200 OK', {'fine': True})
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        start_response(status, [('Content-Type', 'application/json'), ('X-Extra', 'yes')])
        return [data]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(client.time, 'sleep', lambda seconds: None)
    clients, app = client.Clients(config.load('try', files=[])), App()
    clients.mount('network', app, token='own-token')
    return clients.network, app


def test_a_users_request_goes_with_both_tokens_and_its_id(world):
    network, app = world
    asker = context.Context(auth_token='user-token', request_id='req-12345678')
    assert network.post('/v2.0/ports', {'port': {}}, asker, params={'fields': 'id'}) == {'fine': True}
    asked, = app.asked
    assert (asked['HTTP_X_AUTH_TOKEN'], asked['HTTP_X_SERVICE_TOKEN']) == ('user-token', 'own-token')
    assert asked['HTTP_X_OPENSTACK_REQUEST_ID'] == 'req-12345678'
    assert (asked['PATH_INFO'], asked['QUERY_STRING'], asked['body']) == ('/v2.0/ports', 'fields=id', b'{"port":{}}')


def test_work_without_a_user_goes_with_our_own_token_and_the_global_id(world):
    network, app = world
    network.get('/v2.0/ports', context.Context(request_id='req-12345678', global_request_id='req-87654321'))
    network.get('/v2.0/ports', context.Context(auth_token='user-token'), as_service=True)
    assert [asked['HTTP_X_AUTH_TOKEN'] for asked in app.asked] == ['own-token'] * 2
    assert 'HTTP_X_SERVICE_TOKEN' not in app.asked[0]
    assert app.asked[0]['HTTP_X_OPENSTACK_REQUEST_ID'] == 'req-87654321'


@pytest.mark.parametrize(('body', 'message', 'kind'), [
    ({'NeutronError': {'type': 'IpAddressInUse', 'message': 'Taken.', 'detail': ''}}, 'network: Taken.', 'IpAddressInUse'),
    ({'conflictingRequest': {'code': 409, 'message': 'Busy.'}}, 'network: Busy.', None),
    ({'errors': [{'status': 409, 'detail': 'Again.', 'code': 'placement.concurrent_update'}]}, 'network: Again.',
     'placement.concurrent_update'),
    ({'error': {'code': 409, 'message': 'No.', 'title': 'Conflict'}}, 'network: No.', None),
    (b'<html>nonsense', 'network: <html>nonsense', 'Conflict'),
    (b'', 'The network service answered 409.', 'Conflict'),
])
def test_faults_keep_the_others_sentence(world, body, message, kind):
    network, app = world
    app.answers = [('409 Conflict', body)]
    with pytest.raises(errors.Conflict) as caught:
        network.get('/v2.0/ports')
    assert caught.value.message == message
    assert kind is None or caught.value.kind == kind
    assert caught.value.service == 'network'


def test_a_503_is_tried_again_where_that_is_safe(world):
    network, app = world
    app.answers = [('503 Service Unavailable', {})] * 2
    assert network.put('/v2.0/ports/x', {}) == {'fine': True}
    assert len(app.asked) == 3
    app.answers = [('503 Service Unavailable', {})]
    with pytest.raises(errors.Unavailable):
        network.post('/v2.0/ports', {})
    assert len(app.asked) == 4


def test_it_gives_up_in_the_end(world):
    network, app = world
    app.answers = [('503 Service Unavailable', {})] * 9
    with pytest.raises(errors.Unavailable):
        network.get('/v2.0/ports')
    assert len(app.asked) == client.RETRIES + 1


def test_deleting_what_is_gone_is_done(world):
    network, app = world
    app.answers = [('404 Not Found', {}), ('404 Not Found', {})]
    assert network.delete('/v2.0/ports/x') is None
    with pytest.raises(errors.NotFound):
        network.delete('/v2.0/ports/x', missing_ok=False)


def test_responses_in_full_and_streams(world):
    network, app = world
    response = network.request('GET', '/v2/images/x/file', stream=True)
    assert response.headers['X-Extra'] == 'yes'
    assert b''.join(response.iter_content(4)) == b'{"fine":true}'
    network.request('PUT', '/v2/images/x/file', data=iter([b'ab', b'cd']), headers={'Content-Type': 'application/octet-stream'})
    assert app.asked[-1]['body'] == b'abcd'
    assert app.asked[-1]['CONTENT_TYPE'] == 'application/octet-stream'


def test_a_service_that_cannot_be_reached(monkeypatch):
    from keystoneauth1 import session
    slept = []
    monkeypatch.setattr(client.time, 'sleep', slept.append)
    conf = config.load('try', files=[])
    conf.set_override('endpoints', {'image': 'http://127.0.0.1:1'}, group='clients')
    clients = client.Clients(conf)
    clients._token, clients._session = 'own-token', session.Session()
    with pytest.raises(errors.Unavailable, match='The image service cannot be reached') as caught:
        clients.image.post('/v2/images', {})
    assert len(slept) == client.RETRIES      # it was refused, so it cannot have arrived: safe even for a POST
    assert errors.transient(caught.value)


def test_a_service_that_is_not_there_is_not_waited_for(monkeypatch):
    class Session:
        request = None

        def get_endpoint(self, **kwargs):
            return None
    monkeypatch.setattr(client.time, 'sleep', lambda seconds: pytest.fail('it waits'))
    clients = client.Clients(config.load('try', files=[]))
    clients._token, clients._session = 'own-token', Session()
    with pytest.raises(errors.Unavailable, match='no block-storage service') as caught:
        clients.volume.get('/v3/p/volumes')
    assert not errors.transient(caught.value)


def test_credentials_that_are_missing_are_said(monkeypatch):
    from oslo_config import cfg
    clients = client.Clients(config.load('try', files=[]))
    with pytest.raises(cfg.RequiredOptError):
        clients.network.get('/v2.0/ports')


def test_an_endpoint_may_or_may_not_name_its_version():
    conf = config.load('try', files=[])
    for base in ('http://x:9696', 'http://x:9696/', 'http://x:9696/v2.0', 'http://x:9696/v2.0/'):
        conf.set_override('endpoints', {'network': base}, group='clients')
        assert client.Clients(conf).network._url(None, '/v2.0/ports') == 'http://x:9696/v2.0/ports'
    with pytest.raises(AttributeError):
        getattr(client.Clients(conf), 'nothing')  # noqa: B009


def test_the_project_in_an_endpoint_gives_way_to_the_path():
    conf = config.load('try', files=[])
    for base in ('http://x:8776', 'http://x:8776/v3', 'http://x:8776/v3/', 'http://x:8776/v3/' + 'p' * 32):
        conf.set_override('endpoints', {'block-storage': base}, group='clients')
        assert client.Clients(conf).volume._url(None, '/v3/p/volumes') == 'http://x:8776/v3/p/volumes'


def test_an_id_in_a_path_leads_nowhere_else(world):
    network, app = world
    network.get('/v2.0/ports/a?b#c%2f d\N{SNOWMAN}')
    assert app.asked[-1]['PATH_INFO'] == '/v2.0/ports/a?b#c%2f d\N{SNOWMAN}' and not app.asked[-1]['QUERY_STRING']
    for path in ('/v2.0/ports/..', '/v2.0/ports/../networks', '/v2.0/ports/.'):
        with pytest.raises(errors.NotFound):
            network.get(path)
    assert len(app.asked) == 1
