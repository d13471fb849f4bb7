"""The outbox: at least once, in order for each resource, over sinks that fail for a while."""
import time

import pytest
import sqlalchemy as sa

from kodiak.common import context, db, outbox
from kodiak.common.runtime import Runtime


class Clock:
    offset = 0.0

    def __call__(self):
        return time.time() + self.offset


class Sink:
    def __init__(self):
        self.seen, self.broken = [], set()

    def __call__(self, message):
        if message['payload'] in self.broken:
            raise ConnectionError('away')
        self.seen.append(message['payload'])


@pytest.fixture
def app(tmp_path):
    metadata = db.metadata()
    outbox.tables(metadata)
    database = db.Database(f'sqlite:///{tmp_path}/o.sqlite')
    metadata.create_all(database.engine)
    yield Runtime('test', None, db=database)
    database.close()


def add(app, *messages):
    with app.db.write() as connection:
        for resource, payload in messages:
            outbox.add(connection, 'thing.update.end', payload, resource_id=resource)


def left(app):
    with app.db.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(outbox.rows))


def test_in_order_for_each_resource_and_nothing_held_up_by_another(app):
    clock, sink = Clock(), Sink()
    publisher = outbox.Publisher(app, {'thing.': sink}, clock=clock)
    add(app, ('a', 1), ('b', 2), ('a', 3), (None, 4), ('b', 5))
    sink.broken = {1}
    assert publisher.run_due() == 3
    assert sink.seen == [2, 4, 5]
    assert left(app) == 2
    sink.broken = set()
    clock.offset += 60
    publisher.run_due()
    assert sink.seen == [2, 4, 5, 1, 3]
    assert left(app) == 0


def test_a_rolled_back_transaction_says_nothing(app):
    sink = Sink()
    with pytest.raises(ZeroDivisionError), app.db.write() as connection:
        outbox.add(connection, 'thing.create.end', 1)
        raise ZeroDivisionError
    assert outbox.Publisher(app, {'': sink}).run_due() == 0


def test_the_longest_prefix_decides_and_no_sink_drops(app):
    one, two = Sink(), Sink()
    with app.db.write() as connection:
        for event in ('thing.create.end', 'thing.port.wired', 'other.end'):
            outbox.add(connection, event, event)
    outbox.Publisher(app, {'thing.': one, 'thing.port.': two}).run_due()
    assert (one.seen, two.seen, left(app)) == (['thing.create.end'], ['thing.port.wired'], 0)


def test_the_message_carries_who_asked_but_not_the_token(app):
    seen = []
    with app.db.write() as connection:
        outbox.add(connection, 'thing.create.end', {'x': 1}, context.Context(
            project_id='p', auth_token='secret', request_id='req-12345678'), resource_id='r')
        assert 'secret' not in str(list(connection.execute(sa.select(outbox.rows))))
    outbox.Publisher(app, {'': seen.append}).run_due()
    message, = seen
    assert (message['event_type'], message['resource_id'], message['attempts']) == ('thing.create.end', 'r', 0)
    assert (message['context'].project_id, message['context'].request_id) == ('p', 'req-12345678')


def test_a_publisher_that_died_is_taken_over_and_the_message_comes_again(app):
    clock, seen = Clock(), []

    def die(message):
        seen.append(message['payload'])
        raise SystemExit
    add(app, ('a', 1))
    with pytest.raises(SystemExit):
        outbox.Publisher(app, {'': die}, clock=clock).run_due()
    sink = Sink()
    other = outbox.Publisher(app, {'': sink}, clock=clock)
    assert other.run_due() == 0
    clock.offset += outbox.Publisher.LEASE + 1
    assert other.run_due() == 1
    assert (seen, sink.seen) == ([1], [1])


def test_the_thread_is_woken_by_the_commit(app):
    sink = Sink()
    publisher = outbox.Publisher(app, {'': sink}, poll=60)
    publisher.start()
    try:
        add(app, ('a', 1))
        deadline = time.time() + 20
        while left(app) and time.time() < deadline:
            time.sleep(0.01)
        assert sink.seen == [1]
    finally:
        publisher.stop()


def test_what_is_disabled_is_not_written(app):
    def told(*disabled):
        outbox.announce(app.db, disabled)
        with app.db.write() as connection:
            for event in ('thing.create', 'thing.part.create', 'thing.partition', 'other.create'):
                outbox.notify(connection, event, event)
        seen = []
        outbox.Publisher(app, {'': seen.append}).run_due()
        return [message['event_type'] for message in seen]
    assert told() == ['thing.create', 'thing.part.create', 'thing.partition', 'other.create']
    assert told('thing.create', 'thing.part') == ['thing.partition', 'other.create']
    assert told('thing') == ['other.create']
    assert outbox.announced(app.db) and not outbox.announced(app.db, 'thing.part.delete')


@pytest.mark.parametrize('bare,told', [(False, 'thing.create.error'), (True, 'thing.create')])
def test_an_error_has_its_priority_with_or_without_its_ending(monkeypatch, bare, told):
    from kodiak.common import oslobus
    monkeypatch.setattr(oslobus, 'reachable', lambda conf: True)
    sent = []

    class Transport:
        def _send_notification(self, target, context, body, version, retry):
            sent.append((target.topic, body['priority'], body['event_type'], body['payload']))
    notifier = outbox.Notifier(None, 'try.host1', ['notifications'], bare=bare)
    notifier._transport = Transport()
    message = {'context': context.background(), 'message_id': '1', 'created_at': db.utcnow(), 'payload': 'broken'}
    notifier({**message, 'event_type': 'thing.create.error'})
    notifier({**message, 'event_type': 'thing.delete'})
    assert sent == [('notifications.error', 'ERROR', told, 'broken'), ('notifications.info', 'INFO', 'thing.delete', 'broken')]
