"""What the tests of every service use: tokens from a test key, the service in process, the persona test.

Nothing here is imported outside tests.
"""
import contextlib
import dataclasses
import importlib.util
import json as jsonlib
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

import sqlalchemy as sa
import werkzeug.serving
import werkzeug.test
from werkzeug.datastructures import Headers

from . import authtoken, outbox, tokens


class Identity:
    """Stands in for identity in the functional tests of the other services: signs tokens, publishes the feed."""

    def __init__(self, catalog=None):
        self.key_id, pem, self.public = tokens.new_key()
        self.private = tokens.load_private(pem)
        self.events = []
        self.catalog = catalog or []
        self.feed = authtoken.Feed(self._answer, interval=None)

    def _answer(self, since):
        return {'keys': [{'id': self.key_id, 'public': self.public}], 'events': self.events[since:],
                'sequence': len(self.events), 'catalog': self.catalog}

    def revoke(self, **conditions):
        """Publish a revocation event."""
        self.events.append({'issued_before': time.time(), **conditions})
        self.feed.refresh()

    def token(self, persona, **extra):
        """A token for a :class:`Persona`; ``extra`` are claims of its own (``app_cred``)."""
        now = time.time()
        domain = ['default', 'Default']
        scope = None
        if persona.system:
            scope = ['s']
        elif persona.domain_id:
            scope = ['d', persona.domain_id, persona.domain_id]
        elif persona.project_id:
            scope = ['p', persona.project_id, persona.project_name or persona.project_id, *domain, False]
        claims = tokens.Claims(
            user=[persona.user_id, persona.user_name or persona.user_id, *domain, None], scope=scope,
            roles=[[role, role] for role in persona.roles], methods=['password'], audit_ids=[uuid.uuid4().hex[:22]],
            issued=now, expires=now + 3600, extra=extra)
        return tokens.sign(claims, self.key_id, self.private)


@dataclasses.dataclass(frozen=True)
class Persona:
    """Somebody who makes requests."""

    user_id: str
    project_id: str | None = None
    roles: tuple = ()
    system: bool = False
    domain_id: str | None = None
    user_name: str | None = None
    project_name: str | None = None


PROJECT, OTHER_PROJECT = 'a' * 32, 'b' * 32
ADMIN = Persona('1' * 32, 'c' * 32, ('admin', 'manager', 'member', 'reader'), user_name='admin', project_name='admin')
MEMBER = Persona('2' * 32, PROJECT, ('member', 'reader'), user_name='member')
READER = Persona('3' * 32, PROJECT, ('reader',), user_name='reader')
OTHER = Persona('4' * 32, OTHER_PROJECT, ('member', 'reader'), user_name='other')
NOROLE = Persona('5' * 32, PROJECT, (), user_name='norole')
SERVICE = Persona('6' * 32, 'd' * 32, ('service', 'admin'), user_name='service')
PERSONAS = {'admin': ADMIN, 'member': MEMBER, 'reader': READER, 'other project': OTHER, 'no role': NOROLE}


@dataclasses.dataclass
class Answer:
    """A response: ``status``, ``headers``, ``data`` (bytes)."""

    status: int
    headers: Headers
    data: bytes

    @property
    def json(self):
        """The parsed body, or None."""
        return jsonlib.loads(self.data) if self.data else None

    def expect(self, status):
        """This answer, after asserting its status; the body stands in the assertion's message."""
        assert self.status == status, f'{self.status} instead of {status}: {self.data[:2000]!r}'
        return self


class Client:
    """Calls a WSGI application as one persona.

    :param application: the pipeline. :param token: sent as X-Auth-Token; :param headers: sent with every request.
    """

    def __init__(self, application, token=None, headers=None, prefix=''):
        self._client = werkzeug.test.Client(application)
        self._headers = dict(headers or {})
        if token:
            self._headers['X-Auth-Token'] = token
        self._prefix = prefix

    def request(self, method, path, json=None, headers=None, data=None):
        """Make a request; ``json`` is sent as the body. Returns an :class:`Answer`."""
        sent = {**self._headers, **(headers or {})}
        sent = {name: value for name, value in sent.items() if value is not None}
        if json is not None:
            data = jsonlib.dumps(json)
            sent.setdefault('Content-Type', 'application/json')
        with self._client.open(self._prefix + path, method=method, headers=sent, data=data, buffered=False) as response:
            return Answer(response.status_code, response.headers, response.get_data())

    def get(self, path, **more):
        """GET."""
        return self.request('GET', path, **more)

    def head(self, path, **more):
        """HEAD."""
        return self.request('HEAD', path, **more)

    def post(self, path, json=None, **more):
        """POST."""
        return self.request('POST', path, json=json, **more)

    def put(self, path, json=None, **more):
        """PUT."""
        return self.request('PUT', path, json=json, **more)

    def patch(self, path, json=None, **more):
        """PATCH."""
        return self.request('PATCH', path, json=json, **more)

    def delete(self, path, **more):
        """DELETE."""
        return self.request('DELETE', path, **more)


def check_personas(api, client_of, parameters=None, prefix='', body=None):
    """Try every route of ``api`` as every persona and return the table of what came out.

    :param api: a :class:`kodiak.common.api.Api` whose application is running.
    :param client_of: ``function(persona or None) -> Client``.
    :param parameters: path parameter to the value of something that exists in :data:`PROJECT`; random ids otherwise.
    :param body: ``function(endpoint) -> JSON body`` for those that need one; ``{}`` otherwise.
    :returns: ``{(method, path, action): {persona name: status}}``.

    Asserts of each endpoint that isn't public: without a token it answers 401; its policy rule is asked before anything
    but a 400, 404 or 406 comes out; where the rule says no the answer is 403 (or 404), and never a success.
    """
    policy = api.runtime.policy
    table = {}
    for endpoint in api.endpoints:
        path = prefix + endpoint.openapi_path
        for name in endpoint.parameters:
            path = path.replace(f'{{{name}}}', str((parameters or {}).get(name, uuid.uuid4())))
        key = (endpoint.method, endpoint.openapi_path, endpoint.action)
        sent = None
        if endpoint.body is not None or endpoint.action:
            sent = body(endpoint) if body else None
            sent = sent if sent is not None else ({endpoint.action: None} if endpoint.action else {})
        headers = {}
        if api.microversions:
            version = endpoint.since or endpoint.until or api.microversions.maximum
            headers['OpenStack-API-Version'] = f'{api.microversions.service} {version[0]}.{version[1]}'
        results = table.setdefault(key, {})
        if endpoint.public:
            continue
        answer = client_of(None).request(endpoint.method, path, json=sent, headers=headers)
        assert answer.status == 401, f'{key} without a token answers {answer.status}'
        for name, persona in PERSONAS.items():
            asked = []
            original = policy.allows
            policy.allows = lambda rule, context, target=None, asked=asked, original=original: (
                asked.append((rule, original(rule, context, target))) or asked[-1][1])
            try:
                answer = client_of(persona).request(endpoint.method, path, json=sent, headers=headers)
            finally:
                del policy.allows
            results[name] = answer.status
            said = [verdict for rule, verdict in asked if rule == endpoint.rule]
            assert said or answer.status in (400, 404, 406), (
                f'{key} as {name} answers {answer.status} and never asks for {endpoint.rule}')
            assert answer.status < 500 or answer.status == 501, f'{key} as {name} answers {answer.status}: {answer.data[:500]}'
            if said and not said[0] and not endpoint.late:
                assert answer.status in (403, 404), f'{key} as {name} answers {answer.status} though {endpoint.rule} says no'
    return table


_applications = {}


def application_of(api, runtime):
    """The application of an :class:`~kodiak.common.api.Api`, which holds its responses to their schemas. It is made once and handed
    from one ``runtime`` to the next, since making it takes longer than most tests."""
    if api not in _applications:
        _applications[api] = api.application(runtime, validate_responses=True)
    found = _applications[api]
    api.runtime = runtime
    for dispatcher in found.view_functions.values():
        dispatcher.api.runtime = runtime
    runtime.policy.add(api.all_rules())
    return found


class Double:
    """A WSGI double of another service: ``calls`` lists what was asked, as ``(method, path, body)``.

    A subclass has ``answer(method, path, query, body)``, which returns a status and what is sent as JSON, or None.
    """

    def __init__(self):
        self.calls = []

    def __call__(self, environ, start_response):
        length = int(environ.get('CONTENT_LENGTH') or 0)
        body = jsonlib.loads(environ['wsgi.input'].read(length)) if length else None
        query = urllib.parse.parse_qs(environ.get('QUERY_STRING', ''), keep_blank_values=True)
        method, path = environ['REQUEST_METHOD'], environ['PATH_INFO']
        self.calls.append((method, path, body))
        status, answer = self.answer(method, path, query, body)
        data = jsonlib.dumps(answer).encode() if answer is not None else b''
        start_response(f'{status} X', [('Content-Type', 'application/json'), ('Content-Length', str(len(data)))])
        return [data]


@contextlib.contextmanager
def serving(application, port=0):
    """Serve a WSGI application over HTTP on the loopback, in threads; gives its URL."""
    handler = type('Quiet', (werkzeug.serving.WSGIRequestHandler,), {'log': lambda *_: None, 'protocol_version': 'HTTP/1.1'})
    server = werkzeug.serving.make_server('127.0.0.1', port, application, threaded=True, request_handler=handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def free_port():
    """A port of the loopback that nothing listens on, below those that outgoing connections get."""
    while True:
        port = random.SystemRandom().randrange(21000, 29000)     # (some tests seed the other)
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
            return port


def end(process):
    """End a process that a test started (or None)."""
    if process is not None and process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def module(test, name):
    """The module ``name`` in the folder above the one of ``test`` (its ``__file__``): what tests of several folders share, which no
    test can import, since tests are no packages."""
    return load(pathlib.Path(test).parents[1] / f'{name}.py', name)


def share(conftest, *names, prefix):
    """Let the tests below a ``conftest.py`` (its ``__file__``) import modules that lie beside it, as ``<prefix>_<name>``.

    :returns: the modules.
    """
    return [load(pathlib.Path(conftest).with_name(f'{name}.py'), f'{prefix}_{name}', known=True) for name in names]


def load(path, name, known=False):
    """The module in a file, under a name. ``known``: others may import it by that name from then on."""
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    if known:
        sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


class Told:
    """The notifications that wait in the outbox of a service, which tells what it changes from now on.

    :param disabled: as of :func:`.outbox.announce`.
    """

    def __init__(self, database, disabled=()):
        self.db = database
        outbox.announce(database, disabled)

    def __call__(self):
        """``[(event type, payload)]`` of what was told since the last call."""
        with self.db.read() as connection:
            rows = connection.execute(sa.select(outbox.rows).order_by(outbox.rows.c.id)).all()
        self.db.transact(lambda connection: connection.execute(sa.delete(outbox.rows)) and None)
        return [(row.event_type, row.payload) for row in rows]

    def types(self):
        """The event types alone."""
        return [event_type for event_type, _ in self()]
