"""The RPC table, and the bus of the tests."""
import subprocess
import sys
import threading

import pytest

from kodiak.common import context, errors, rpc

TABLE = rpc.Table('try', calls=[rpc.Call('add', args=('a', 'b')), rpc.Call('refuse'), rpc.Call('break_down'), rpc.Call('who')],
                  casts=[rpc.Cast('look', args=('generation',))])


class Handlers:
    def __init__(self, name=''):
        self.name, self.seen, self.asked = name, [], []

    def add(self, context, a, b):
        return {'sum': a + b, 'of': (a, b)}

    def refuse(self, context):
        raise errors.NotFound('no such thing', kind='ThingNotFound')

    def break_down(self, context):
        return 1 / 0

    def who(self, context):
        self.asked.append(context)
        return self.name

    def look(self, context, generation):
        self.seen.append(generation)


@pytest.fixture
def bus():
    made = rpc.Bus.in_memory()
    yield made
    made.close()


def test_calls_pass_through_json(bus):
    bus.serve(TABLE, Handlers(), 'topic')
    assert bus.client(TABLE, 'topic').call('add', a=1, b=2) == {'sum': 3, 'of': [1, 2]}


def test_the_context_arrives_without_its_token(bus):
    handlers = Handlers()
    bus.serve(TABLE, handlers, 'topic')
    bus.client(TABLE, 'topic').call('who', context.Context(
        user_id='u', project_id='p', auth_token='secret', request_id='req-12345678', roles=['admin']))
    seen, = handlers.asked
    assert (seen.user_id, seen.project_id, seen.request_id, seen.roles) == ('u', 'p', 'req-12345678', ['admin'])
    assert seen.auth_token is None


def test_errors_cross_and_defects_do_not_tell_their_details(bus):
    bus.serve(TABLE, Handlers(), 'topic')
    client = bus.client(TABLE, 'topic')
    with pytest.raises(errors.NotFound, match='no such thing') as caught:
        client.call('refuse')
    assert caught.value.kind == 'ThingNotFound'
    with pytest.raises(errors.Error) as caught:
        client.call('break_down')
    assert (caught.value.code, caught.value.message) == (500, errors.Error.default)


def test_servers_are_asked_by_name_in_turn_or_all(bus):
    handlers = {name: Handlers(name) for name in ('one', 'two')}
    serving = {name: bus.serve(TABLE, handler, 'topic', server=name) for name, handler in handlers.items()}
    client = bus.client(TABLE, 'topic')
    assert client.call('who', server='two') == 'two'
    assert {client.call('who') for _ in range(4)} == {'one', 'two'}
    client.cast('look', fanout=True, generation=1)
    client.cast('look', server='one', generation=2)
    bus.settle()
    assert (handlers['one'].seen, handlers['two'].seen) == ([1, 2], [1])
    serving['two'].stop()
    with pytest.raises(rpc.Unreachable, match='topic on two did not answer'):
        client.call('who', server='two')


def test_a_cast_without_a_listener_is_dropped(bus):
    bus.client(TABLE, 'nobody').cast('look', generation=1)
    bus.settle()


def test_buses_are_apart(bus):
    bus.serve(TABLE, Handlers(), 'topic')
    other = rpc.Bus.in_memory()
    with pytest.raises(rpc.Unreachable):
        other.client(TABLE, 'topic').call('who')


def test_a_handler_that_casts_does_not_wait_for_itself(bus):
    done = threading.Event()

    class Chain(Handlers):
        def look(self, context, generation):
            if generation:
                bus.client(TABLE, 'topic').cast('look', generation=generation - 1)
            else:
                done.set()
    bus.serve(TABLE, Chain(), 'topic')
    bus.client(TABLE, 'topic').cast('look', generation=3)
    assert done.wait(10)


def test_the_caller_is_held_to_the_table(bus):
    client = bus.client(TABLE, 'topic')
    for arguments in ({'a': 1}, {'a': 1, 'b': 2, 'c': 3}):
        with pytest.raises(TypeError, match="takes \\['a', 'b'\\]"):
            client.call('add', **arguments)
    with pytest.raises(TypeError, match="no 'look' among its calls"):
        client.call('look', generation=1)
    with pytest.raises(TypeError, match="no 'add' among its casts"):
        client.cast('add', a=1, b=2)


def test_a_server_must_answer_all_of_its_table(bus):
    class Half:
        def add(self, context, a, b):
            """Only this."""
    with pytest.raises(TypeError, match=r"does not answer \['refuse', 'break_down', 'who', 'look'\]"):
        bus.serve(TABLE, Half(), 'topic')


def test_a_table_names_each_thing_once():
    with pytest.raises(ValueError, match='a name twice'):
        rpc.Table('try', calls=[rpc.Call('look')], casts=[rpc.Cast('look')])


def test_a_process_that_asks_nobody_does_not_import_the_library():
    code = ('import sys; from kodiak.common import rpc, config, service, saga, outbox, reconcile, client, heartbeat;'
            'bus = rpc.Bus(config.load("try", files=[])); bus.client(rpc.Table("t"), "t"); bus.healthy();'
            'wanted = {"oslo_messaging", "eventlet", "kombu", "gunicorn", "oslo_privsep"} & set(sys.modules);'
            'print(wanted or "none")')
    assert subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout == 'none\n'
