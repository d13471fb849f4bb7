"""RPC over a real RabbitMQ: the wire format as a plain AMQP client sees it, and a broker that goes and comes back empty."""
import json
import shutil
import threading
import time

import amqp
import pytest
from oslo_config import cfg

from kodiak.common import config, context, db, errors, outbox, rpc
from kodiak.common.runtime import Runtime

pytestmark = [pytest.mark.system, pytest.mark.skipif(not shutil.which('rabbitmq-server'), reason='no RabbitMQ here')]

AGENT = rpc.Table('try-agent', version='1.2', calls=[
    rpc.Call('add', args=('a', 'b'), timeout=10), rpc.Call('refuse', timeout=10),
    rpc.Call('slow', args=('seconds',), timeout=1)], casts=[rpc.Cast('look', args=('generation',))])


class Handlers:
    def __init__(self):
        self.seen = []
        self.changed = threading.Condition()

    def add(self, context, a, b):
        return a + b

    def refuse(self, context):
        raise errors.Conflict('busy now', kind='Busy', detail={'by': context.user_id})

    def slow(self, context, seconds):
        time.sleep(seconds)

    def look(self, context, generation):
        with self.changed:
            self.seen.append((generation, context.request_id))
            self.changed.notify_all()

    def wait_for(self, generation, timeout=30):
        with self.changed:
            return self.changed.wait_for(lambda: any(seen[0] == generation for seen in self.seen), timeout)


@pytest.fixture
def buses(broker):
    made = []

    def make(host='host1'):
        conf = config.load('testing', files=[])
        conf.set_override('transport_url', broker.url)
        conf.set_override('host', host)
        made.append(rpc.Bus(conf))
        return made[-1]
    yield make
    for bus in made:
        bus.close()


def serving(bus, **kwargs):
    handlers = Handlers()
    assert bus.serve(AGENT, handlers, 'try-agent', **kwargs).ready.wait(30)
    return handlers


def test_a_plain_client_reads_the_envelope(broker, buses):
    connection = amqp.Connection(f'127.0.0.1:{broker.port}', 'guest', 'guest')
    connection.connect()
    channel = connection.channel()
    channel.exchange_declare('kodiak', 'topic', durable=False, auto_delete=False)
    channel.queue_declare('try-plain.host9', durable=False, auto_delete=False)
    channel.queue_bind('try-plain.host9', 'kodiak', 'try-plain.host9')
    asker = context.Context(user_id='u1', project_id='p1', auth_token='secret-token', request_id='req-11111111')
    buses().client(AGENT, 'try-plain').cast('look', asker, server='host9', generation=7)
    deadline, message = time.time() + 20, None
    while message is None and time.time() < deadline:
        message = channel.basic_get('try-plain.host9', no_ack=True)
        time.sleep(0.05)
    connection.close()
    envelope = json.loads(message.body)
    assert set(envelope) == {'oslo.version', 'oslo.message'}
    assert envelope['oslo.version'] == '2.0'
    inside = json.loads(envelope['oslo.message'])
    assert inside['method'] == 'look'
    assert inside['args'] == {'generation': 7}
    assert inside['version'] == '1.2'
    assert inside['namespace'] == 'try-agent'
    assert inside['_context_request_id'] == 'req-11111111'
    assert inside['_context_user'] == 'u1'
    assert 'secret-token' not in message.body
    assert int(message.properties['expiration']) == rpc.HINT_LIFE * 1000


def test_calls_errors_and_timeouts_cross(broker, buses):
    handlers = serving(buses())
    client = buses().client(AGENT, 'try-agent')
    assert client.call('add', a=1, b=2) == 3
    assert client.call('add', server='host1', a='x', b='y') == 'xy'
    with pytest.raises(errors.Conflict, match='busy now') as caught:
        client.call('refuse', context.Context(user_id='u1'))
    assert (caught.value.kind, caught.value.detail) == ('Busy', {'by': 'u1'})
    with pytest.raises(rpc.Unreachable, match='try-agent did not answer within 1 seconds'):
        client.call('slow', seconds=3)
    client.cast('look', fanout=True, generation=3)
    assert handlers.wait_for(3)


@pytest.mark.parametrize('table', [
    rpc.Table('try-agent', version='1.2', calls=[rpc.Call('unknown', timeout=10)]),
    rpc.Table('try-agent', version='1.3', calls=[rpc.Call('add', args=('a', 'b'), timeout=10)]),
    rpc.Table('try-agent', version='2.0', calls=[rpc.Call('add', args=('a', 'b'), timeout=10)]),
    rpc.Table('try-agent', version='1.2', calls=[rpc.Call('add', args=('a',), timeout=10)]),
], ids=['method', 'minor', 'major', 'arguments'])
def test_a_process_of_another_release_is_told_so(broker, buses, table):
    serving(buses())
    (name, call), = table.calls.items()
    with pytest.raises(errors.Error, match='Do all processes run the same release'):
        buses().client(table, 'try-agent').call(name, **dict.fromkeys(call.args, 1))


def test_a_broker_that_is_away_stops_nothing_and_comes_back_empty(broker, buses):
    handlers = serving(buses())
    bus = buses()
    client = bus.client(AGENT, 'try-agent')
    assert client.call('add', a=1, b=2) == 3
    broker.stop()
    broker.wipe()
    try:
        began = time.monotonic()
        for generation in range(50):
            client.cast('look', server='host1', generation=generation)
        assert time.monotonic() - began < 5      # not a measurement: each would wait for seconds
        with pytest.raises(rpc.Unreachable):
            client.call('add', timeout=2, a=1, b=2)
        assert not bus.healthy()
        fresh = buses('host2')
        with pytest.raises(rpc.Unreachable, match='cannot be reached'):
            fresh.client(AGENT, 'try-agent').call('add', timeout=1, a=1, b=2)
        late = fresh.serve(AGENT, Handlers(), 'try-agent')
    finally:
        broker.start()
    assert late.ready.wait(60)
    deadline = time.time() + 60
    answer = None
    while answer is None and time.time() < deadline:
        try:
            answer = client.call('add', server='host1', timeout=2, a=2, b=2)
        except rpc.Unreachable:
            continue
    assert answer == 4
    client.cast('look', server='host1', generation=1000)
    assert handlers.wait_for(1000)


def test_notifications_wait_for_the_broker(broker, buses, tmp_path):
    metadata = db.metadata()
    outbox.tables(metadata)
    app = Runtime('try', None, db=db.Database(f'sqlite:///{tmp_path}/o.sqlite'))
    metadata.create_all(app.db.engine)
    conf = buses().conf
    publisher = outbox.Publisher(app, {'': outbox.Notifier(conf, 'try.host1', ['notifications', 'other'])})
    broker.stop()
    with app.db.write() as connection:
        outbox.add(connection, 'thing.create.end', {'id': 7}, context.Context(project_id='p1', auth_token='secret-token'))
    try:
        assert publisher.run_due() == 0
    finally:
        broker.start()
    connection = amqp.Connection(f'127.0.0.1:{broker.port}', 'guest', 'guest')
    connection.connect()
    channel = connection.channel()
    channel.exchange_declare('openstack', 'topic', durable=False, auto_delete=False)
    channel.queue_declare('notifications.info', durable=False, auto_delete=False)
    channel.queue_bind('notifications.info', 'openstack', 'notifications.info')
    channel.queue_declare('other.error', durable=False, auto_delete=False)
    channel.queue_bind('other.error', 'openstack', 'other.error')
    deadline = time.time() + 30
    while not publisher.run_due() and time.time() < deadline:
        time.sleep(0.2)
    message = channel.basic_get('notifications.info', no_ack=True)
    with app.db.write() as connection_of_ours:
        outbox.add(connection_of_ours, 'thing.create.error', {'id': 8})
    assert publisher.run_due() == 1
    failed = None
    while failed is None and time.time() < deadline:
        failed = channel.basic_get('other.error', no_ack=True)
        time.sleep(0.05)
    assert json.loads(json.loads(failed.body)['oslo.message'])['priority'] == 'ERROR'
    connection.close()
    inside = json.loads(json.loads(message.body)['oslo.message'])
    assert (inside['event_type'], inside['payload'], inside['publisher_id']) == ('thing.create.end', {'id': 7}, 'try.host1')
    assert inside['_context_project_id'] == 'p1'
    assert 'secret-token' not in message.body


def test_the_option_of_the_broker_is_ours_and_the_librarys():
    conf = config.load('testing', files=[])
    assert conf.transport_url is None
    bus = rpc.Bus(conf)
    assert bus.healthy()
    bus.client(AGENT, 'x').cast('look', generation=1)
    with pytest.raises(rpc.Unreachable, match='transport_url is not set'):
        bus.client(AGENT, 'x').call('refuse')
    assert isinstance(conf, cfg.ConfigOpts)
