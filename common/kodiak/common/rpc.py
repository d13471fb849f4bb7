"""RPC inside one service: what its processes ask each other, declared as a table, carried by oslo.messaging.

A service declares one :class:`Table` for each kind of process that answers::

    AGENT = rpc.Table('network-agent', version='1.0',
                      calls=[rpc.Call('console', args=('uuid',), timeout=20, doc='...')],
                      casts=[rpc.Cast('look', args=('generation',), doc='...')])

    bus.serve(AGENT, handlers, topic='network-agent', server=host)      # handlers.look(context, generation=7)
    bus.client(AGENT, 'network-agent').cast('look', context, server=host, generation=7)

A call waits for its answer, at most the seconds in the table. A cast is a hint: it never waits and never
fails, and it is dropped where the broker stays away. An error of :mod:`kodiak.common.errors` raised by
a handler is raised again at the caller; any other is logged where it happened and arrives as a 500.
Arguments and answers are JSON. The wire format is oslo.messaging's envelope 2.0.
"""
import collections
import dataclasses
import logging
import threading
import time

import orjson

from kodiak.common import errors, events, metrics, noeventlet
from kodiak.common.context import Context, background

LOG = logging.getLogger(__name__)

EXCHANGE = 'kodiak'
HINT_LIFE = 10        # seconds after which a cast that was not sent, or not received, says nothing new


class Unreachable(errors.Unavailable):
    """The broker or the process asked did not answer in time."""


class Mismatch(errors.Error):
    """The other process does not know the call: it is of another release."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A question with an answer. ``args``: the names of its arguments, all of them required."""

    name: str
    args: tuple = ()
    timeout: float = 30
    doc: str = ''


@dataclasses.dataclass(frozen=True)
class Cast:
    """A hint without an answer."""

    name: str
    args: tuple = ()
    doc: str = ''


class Table:
    """What one kind of process answers. The version's second figure grows with each call that is added."""

    def __init__(self, name, version='1.0', calls=(), casts=()):
        self.name, self.version = name, version
        self.calls = {call.name: call for call in calls}
        self.casts = {cast.name: cast for cast in casts}
        if len({*self.calls, *self.casts}) != len(calls) + len(casts):
            raise ValueError(f'the table {name} has a name twice')

    def entry(self, kind, name, args):
        """The declaration of a call or cast; TypeError where the caller's arguments are not the declared ones."""
        entry = getattr(self, kind).get(name)
        if entry is None:
            raise TypeError(f'{self.name} has no {name!r} among its {kind}')
        if set(args) != set(entry.args):
            raise TypeError(f'{self.name}.{name} takes {sorted(entry.args)}, not {sorted(args)}')
        return entry


class Client:
    """Asks those who serve ``table`` on ``topic``; made by :meth:`Bus.client`."""

    def __init__(self, bus, table, topic):
        self.bus, self.table, self.topic = bus, table, topic

    def call(self, name, context=None, *, server=None, timeout=None, **args):
        """Ask and wait for the answer.

        :param server: ask this server only; any one of the topic's otherwise.
        :param timeout: seconds, in place of the table's.
        :raises Unreachable: no answer in time. :raises errors.Error: what the handler raised.
        """
        entry = self.table.entry('calls', name, args)
        began = time.monotonic()
        outcome = 'error'
        try:
            answer = self.bus._call(self, name, _wire(context), args, server, timeout or entry.timeout)
            if answer.get('error') is not None:
                raise errors.from_dict(answer['error'])
            outcome = 'ok'
            return answer.get('result')
        finally:
            _note('call', self.table, name, context, outcome, time.monotonic() - began, self.topic, server)

    def cast(self, name, context=None, *, server=None, fanout=False, **args):
        """Send a hint to ``server``, to all (``fanout``), or to any one of the topic. Returns at once."""
        self.table.entry('casts', name, args)
        self.bus._cast(self, name, _wire(context), args, server, fanout)


def _wire(context):
    if context is None:
        return {}
    values = context.to_dict()
    values.pop('auth_token', None)
    return values


def _note(side, table, name, context, outcome, seconds, topic=None, server=None):
    """Count an RPC, and note it where it was made for somebody's request or went wrong."""
    metrics.rpc(side, table.name, name, outcome, seconds)
    if context is not None and (context.user_id or context.global_request_id or outcome != 'ok'):
        events.emit('rpc', context.request_id, context.global_request_id, side=side, name=f'{table.name}.{name}',
                    to=' on '.join(filter(None, (topic, server))) or None, outcome=outcome, ms=round(seconds * 1000, 1))


def _answer(table, handlers, name, wire, args):
    """Run a handler: ``{'result': ...}`` or ``{'error': ...}``."""
    began = time.monotonic()
    outcome, context = 'error', None
    try:
        kind = 'calls' if name in table.calls else 'casts'
        try:
            table.entry(kind, name, args)
        except TypeError as error:
            raise Mismatch(f'{error}. Do all processes run the same release?')
        context = Context.from_dict(wire) if wire else None
        present = context or background()
        present.update_store()
        result = getattr(handlers, name)(present, **args)
        outcome = 'ok'
        return {'result': result}
    except errors.Error as error:
        LOG.info('%s.%s answers with an error: %s', table.name, name, error)
        return {'error': errors.to_dict(error)}
    except Exception as error:
        LOG.exception('%s.%s failed', table.name, name)
        return {'error': errors.to_dict(error)}
    finally:
        _note('serve', table, name, context, outcome, time.monotonic() - began)


class Bus:
    """The RPC of one process, over the broker of ``[DEFAULT] transport_url``.

    Nothing is imported or connected before the first call, cast or :meth:`serve`.
    """

    def __init__(self, conf):
        self.conf = conf
        self._lock = threading.Lock()
        self._transport = None
        self._clients = {}
        self._servers = []
        self._hints = collections.OrderedDict()
        self._more = threading.Condition()
        self._sender = None
        self._closed = False
        self._seen = 0.0

    @staticmethod
    def in_memory():
        """A bus of its own inside this process, for tests; messages pass through JSON all the same."""
        return MemoryBus()

    def client(self, table, topic):
        """A :class:`Client` of those who serve ``table`` on ``topic``."""
        return Client(self, table, topic)

    def serve(self, table, handlers, topic, server=None, threads=16):
        """Answer for ``table`` on ``topic`` in threads of this process, from as soon as the broker is there.

        :param handlers: an object with one method a call and cast: ``method(context, **args)``.
        :param server: the name under which this process can be asked in particular; the host's by default.
        :returns: an object with ``stop()``, which lets running calls finish.
        """
        _check(table, handlers)
        serving = _Serving(self, table, handlers, topic, server or self.conf.host, threads)
        self._servers.append(serving)
        serving.thread.start()
        return serving

    def healthy(self):
        """True if the broker can be reached now, or if this process has none (no ``transport_url``)."""
        if not self.conf.transport_url:
            return True
        from kodiak.common import oslobus
        return oslobus.reachable(self.conf)

    def close(self):
        """Stop serving, drop what was not sent, disconnect."""
        for serving in self._servers:
            serving.stop()
        with self._more:
            self._closed = True
            self._more.notify_all()
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            # The library waits seconds for its own polls to end; a process that ends need not.
            ending = threading.Thread(target=transport.cleanup, name='rpc-close', daemon=True)
            ending.start()
            ending.join(0.5)

    def transport(self):
        """The oslo.messaging transport, made at its first use."""
        with self._lock:
            if self._transport is None:
                from kodiak.common import oslobus
                self._transport = oslobus.transport(self.conf)
            return self._transport

    def _oslo_client(self, client):
        key = (client.table.name, client.topic)
        if key not in self._clients:
            oslo_messaging = noeventlet.import_messaging()
            target = oslo_messaging.Target(exchange=EXCHANGE, topic=client.topic, namespace=client.table.name,
                                           version=client.table.version)
            self._clients[key] = oslo_messaging.get_rpc_client(self.transport(), target, retry=1)
        return self._clients[key]

    def _call(self, client, name, wire, args, server, timeout):
        # The driver waits for a broker without end when it connects for the first time: look before.
        if not self.conf.transport_url:
            raise Unreachable('This service has no message broker: [DEFAULT] transport_url is not set.')
        deadline = time.monotonic() + timeout
        while time.monotonic() - self._seen > 5.0 and not self.healthy():
            if time.monotonic() > deadline:
                raise Unreachable(f'The message broker cannot be reached, so {client.topic} could not be asked.')
            time.sleep(min(0.5, timeout))
        oslo_messaging = noeventlet.import_messaging()
        prepared = self._oslo_client(client).prepare(timeout=max(0.1, deadline - time.monotonic()),
                                                     **({'server': server} if server else {}))
        try:
            answer = prepared.call(wire, name, **args)
        except oslo_messaging.RemoteError as error:
            LOG.error('%s on %s: %s', name, client.topic, error)
            raise Mismatch(f'{client.topic} does not know {name} of {client.table.name} {client.table.version}. '
                           'Do all processes run the same release?')
        except Exception as error:      # the library's own, and those of the two below it
            self._seen = 0.0
            LOG.warning('%s on %s %s did not answer: %s', name, client.topic, server or '', error)
            raise Unreachable(f'{client.topic}{" on " + server if server else ""} did not answer within '
                              f'{timeout:g} seconds.')
        self._seen = time.monotonic()
        return answer

    def _cast(self, client, name, wire, args, server, fanout):
        if not self.conf.transport_url:
            return
        key = (client.table.name, client.topic, name, server, fanout, orjson.dumps(args))
        with self._more:
            # A hint that still waits to be sent says the same as a new one.
            self._hints[key] = (time.monotonic(), client, name, wire, args, server, fanout)
            if len(self._hints) > 1000:
                self._hints.popitem(last=False)
            if self._sender is None:
                self._sender = threading.Thread(target=self._send, name='rpc-cast', daemon=True)
                self._sender.start()
            self._more.notify()

    def _send(self):
        while True:
            with self._more:
                while not self._hints:
                    if self._closed:
                        return
                    self._more.wait()
                if self._closed:
                    return
                _, (born, client, name, wire, args, server, fanout) = self._hints.popitem(last=False)
            outcome = 'dropped'
            try:
                while time.monotonic() - self._seen > 5.0 and not self.healthy():
                    if time.monotonic() - born > HINT_LIFE or self._closed:
                        break
                    time.sleep(0.5)
                else:
                    options = {'server': server} if server else {'fanout': True} if fanout else {}
                    prepared = self._oslo_client(client).prepare(**options)
                    # Not prepared.cast(): that cannot say how long a broker should keep the hint for a server that
                    # is away, and they would pile up in its queue.
                    self._transport._send(prepared.target, wire, prepared._make_message(wire, name, args),
                                          timeout=HINT_LIFE, retry=1)
                    self._seen = time.monotonic()
                    outcome = 'ok'
            except Exception as error:
                self._seen = 0.0
                LOG.info('The hint %s to %s was not sent: %s', name, client.topic, error)
            metrics.rpc('cast', client.table.name, name, outcome, time.monotonic() - born)


def _check(table, handlers):
    missing = [name for name in (*table.calls, *table.casts) if not callable(getattr(handlers, name, None))]
    if missing:
        raise TypeError(f'{type(handlers).__name__} does not answer {missing} of {table.name}')


class _Serving:
    """One table served on one topic: connects in a thread, because the broker may not be there yet."""

    def __init__(self, bus, table, handlers, topic, server, threads):
        self.bus, self.table, self.topic, self.server, self.threads = bus, table, topic, server, threads
        self.handlers = handlers
        self.stopped = threading.Event()
        self.ready = threading.Event()
        self._rpc_server = None
        self.thread = threading.Thread(target=self._start, name='rpc-serve', daemon=True)

    def _start(self):
        oslo_messaging = noeventlet.import_messaging()

        class Declared(oslo_messaging.RPCAccessPolicyBase):
            def is_allowed(self, endpoint, method):
                return method in endpoint.names

        while not (self.bus.conf.transport_url and self.bus.healthy()):
            if self.stopped.wait(0.5):
                return
        target = oslo_messaging.Target(exchange=EXCHANGE, topic=self.topic, server=self.server)
        self._rpc_server = oslo_messaging.get_rpc_server(
            self.bus.transport(), target, [_endpoint(self.table, self.handlers)], access_policy=Declared)
        self._rpc_server.start(override_pool_size=self.threads)
        self.ready.set()

    def stop(self):
        """Take no more messages; let what runs finish."""
        self.stopped.set()
        if self._rpc_server is not None:
            self._rpc_server.stop()
            self._rpc_server.wait()
            self._rpc_server = None


def _endpoint(table, handlers):
    """The object that oslo.messaging dispatches to: one method for each name in the table."""
    oslo_messaging = noeventlet.import_messaging()

    class Endpoint:
        target = oslo_messaging.Target(namespace=table.name, version=table.version)
        names = frozenset((*table.calls, *table.casts))

        def __getattr__(self, name):
            if name not in self.names:
                raise AttributeError(name)
            return lambda wire, **args: _answer(table, handlers, name, wire, args)
    return Endpoint()


class MemoryBus(Bus):
    """:meth:`Bus.in_memory`: calls run in the caller's thread, casts in one thread of the bus."""

    def __init__(self):
        super().__init__(None)
        self._served = []
        self._turn = 0
        self._casts = collections.deque()
        self._busy = 0

    def serve(self, table, handlers, topic, server=None, threads=16):
        """As :meth:`Bus.serve`; in effect when it returns."""
        _check(table, handlers)
        entry = (table, handlers, topic, server or 'localhost')
        self._served.append(entry)

        class Serving:
            ready = threading.Event()

            @staticmethod
            def stop():
                if entry in self._served:
                    self._served.remove(entry)
        Serving.ready.set()
        return Serving

    def healthy(self):
        """Always."""
        return True

    def close(self):
        """Serve and deliver no more."""
        self._served.clear()
        with self._more:
            self._closed = True
            self._more.notify_all()

    def settle(self, timeout=10):
        """Wait until every cast has been handled. :raises TimeoutError: they were not."""
        with self._more:
            if not self._more.wait_for(lambda: not self._casts and not self._busy, timeout):
                raise TimeoutError('casts are still being handled')

    def _find(self, client, server):
        return [entry for entry in self._served
                if entry[2] == client.topic and entry[0].name == client.table.name and server in {None, entry[3]}]

    def _call(self, client, name, wire, args, server, timeout):
        found = self._find(client, server)
        if not found:
            raise Unreachable(f'{client.topic}{" on " + server if server else ""} did not answer within '
                              f'{timeout:g} seconds.')
        self._turn += 1
        table, handlers, _, _ = found[self._turn % len(found)]
        return orjson.loads(orjson.dumps(_answer(table, handlers, name, wire, orjson.loads(orjson.dumps(args)))))

    def _cast(self, client, name, wire, args, server, fanout):
        found = self._find(client, server)
        self._turn += 1
        if found and not fanout:
            found = [found[self._turn % len(found)]]
        args = orjson.dumps(args)
        with self._more:
            self._casts.extend((table, handlers, name, wire, args) for table, handlers, _, _ in found)
            if self._sender is None:
                self._sender = threading.Thread(target=self._deliver, name='rpc-cast', daemon=True)
                self._sender.start()
            self._more.notify_all()

    def _deliver(self):
        while True:
            with self._more:
                self._more.wait_for(lambda: self._casts or self._closed)
                if self._closed:
                    return
                table, handlers, name, wire, args = self._casts.popleft()
                self._busy += 1
            _answer(table, handlers, name, wire, orjson.loads(args))
            with self._more:
                self._busy -= 1
                self._more.notify_all()
