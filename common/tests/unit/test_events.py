"""Events of several processes in one file, which turns when it is full."""
import logging
import os

import orjson
import pytest

from kodiak.common import context, events, rpc, wsgi


@pytest.fixture
def path(tmp_path, monkeypatch):
    before = logging.getLogger().handlers[:]
    for name in ('_path', '_file', '_binary', '_left'):
        monkeypatch.setattr(events, name, getattr(events, name))
    events.setup(str(tmp_path / 'try' / 'events'), 'kodiak-try-api')
    yield tmp_path / 'try' / 'events' / 'kodiak-try-api.jsonl'
    logging.getLogger().handlers[:] = before


def read(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_an_event_is_a_line(path):
    events.emit('http', 'req-1', 'req-0', method='POST', path='/v2/x', code='202', ms=1.5)
    event, = read(path)
    assert event.pop('at') > 1e9
    assert event == {'binary': 'kodiak-try-api', 'kind': 'http', 'request_id': 'req-1', 'global_request_id': 'req-0',
                     'method': 'POST', 'path': '/v2/x', 'code': '202', 'ms': 1.5}


def test_a_full_file_turns_and_others_follow(path, monkeypatch):
    monkeypatch.setattr(events, 'LIMIT', 1000)
    monkeypatch.setattr(events, 'LOOK_EVERY', 5)
    monkeypatch.setattr(events, '_left', 5)
    for number in range(100):
        events.emit('log', message=f'{number:03} ' + 'x' * 50)
    found = sorted(entry.name for entry in path.parent.iterdir())
    assert found == ['kodiak-try-api.jsonl', 'kodiak-try-api.jsonl.1']
    assert path.stat().st_size < 3000
    # Another process turned it: this one goes on in the new file.
    os.replace(path, str(path) + '.1')
    for _ in range(6):
        events.emit('log', message='later')
    assert read(path)[-1]['message'] == 'later'


def test_problems_that_were_logged_for_a_request_are_events(path):
    context.Context(request_id='req-12345678', overwrite=True)
    logging.getLogger('kodiak.try').warning('no %s', 'route')
    logging.getLogger('kodiak.try').info('fine')
    event, = read(path)
    assert (event['kind'], event['request_id'], event['message']) == ('log', 'req-12345678', 'no route')


def test_rpcs_made_for_a_request_are_events_and_others_are_not(path):
    table = rpc.Table('try', calls=[rpc.Call('ask')])

    class Handlers:
        def ask(self, context):
            return 1
    bus = rpc.Bus.in_memory()
    bus.serve(table, Handlers(), 'topic')
    bus.client(table, 'topic').call('ask')
    bus.client(table, 'topic').call('ask', context.background())
    bus.client(table, 'topic').call('ask', context.Context(request_id='req-12345678', user_id='u'))
    bus.close()
    assert [(event['side'], event['name'], event['outcome'], event['request_id']) for event in read(path)] == [
        ('serve', 'try.ask', 'ok', 'req-12345678'), ('call', 'try.ask', 'ok', 'req-12345678')]


@pytest.mark.parametrize(('method', 'status', 'global_id', 'noted'), [
    ('GET', '200 OK', None, False), ('GET', '404 Not Found', None, True), ('POST', '202 Accepted', None, True),
    ('GET', '200 OK', 'req-12345678', True), ('GET', '304 Not Modified', None, False)])
def test_requests(path, method, status, global_id, noted):
    def application(environ, start_response):
        start_response(status, [])
        return [b'']
    environ = {'REQUEST_METHOD': method, 'PATH_INFO': '/v2/x'}
    if global_id:
        environ['HTTP_X_OPENSTACK_REQUEST_ID'] = global_id
    wsgi.Front(application, 'try')(environ, lambda *args: None)
    found = read(path)
    assert bool(found) is noted
    if noted:
        assert (found[0]['path'], found[0]['code'], found[0]['global_request_id']) == ('/v2/x', status[:3], global_id)


def test_without_setup_or_rights_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(events, '_path', None)
    events.emit('log', message='x')
    (tmp_path / 'file').touch()
    events.setup(str(tmp_path / 'file' / 'events'), 'x')
    events.emit('log', message='x')
    assert events._path is None


def test_a_request_that_failed_says_why_and_no_secret(path):
    def refuse(environ, start_response):
        environ['kodiak.fault'] = "No address is left for {'password': 'hunter2'}."
        start_response('409 Conflict', [])
        return []
    wsgi.Front(refuse, 'try')({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/x'}, lambda *args: None)
    event, = read(path)
    assert event['code'] == '409' and event['fault'].startswith('No address is left for') and 'hunter2' not in event['fault']
