"""The fuzz test of a service: schemathesis over its own OpenAPI document, in process.

Nothing here is imported outside tests.
"""
import contextlib
import os

import hypothesis
import hypothesis.strategies as st
import schemathesis
import werkzeug.test
from schemathesis import GenerationMode, checks
from schemathesis.core import failures

#: Examples an operation and kind (valid, invalid). What is generated is the same in every run unless KODIAK_FUZZ_EXAMPLES, which
#: asks for more, is set.
EXAMPLES = 4
#: Faults that are told of.
MOST = 50
_CHECKS = [checks.not_a_server_error, checks.response_schema_conformance]


def run(application, token, values=lambda path, names: {}, bodies=None, headers=None, media=(), sent=None, allowed=(), skip=()):
    """Try every operation of a document with requests that fit it and others that don't; returns the faults found, as text.

    :param application: the WSGI pipeline, with the document at ``/openapi.json``. :param token: who asks.
    :param values: ``function(path, names of its parameters) -> {name: [values]}``, called before whatever may change or
        remove them: what exists. Most requests name it, so that they come further than to a 404; each list keeps its length.
    :param bodies: ``{(method, path): strategy}`` of bodies that mean something there; half of the requests use them.
    :param headers: the same for headers. :param media: media types that are JSON under another name.
    :param sent: headers that go with every request.
    :param allowed: statuses of 500 and more that are no fault here. :param skip: ``(method, path)`` that are left out.

    A fault is an answer of 500 or more, and a response that is not what the document says.
    """
    if media:
        schemathesis.serializer.alias(list(media), 'application/json')
    document = werkzeug.test.Client(application).get('/openapi.json').json
    # Requests without a token are the persona test's; here half of all would be.
    document.pop('security', None)
    schema = schemathesis.openapi.from_dict(document)
    schema.app = application
    found = []
    for result in schema.get_all_operations():
        operation = result.ok()
        key = (operation.method.upper(), operation.path)
        if key not in skip:
            _one(operation, {'X-Auth-Token': token, 'Accept': 'application/json', **(sent or {})}, values,
                 (bodies or {}).get(key), (headers or {}).get(key), allowed, found)
    return found


def mounted(application, prefix):
    """A pipeline as it is under the prefix that its document names."""
    def call(environ, start_response):
        if environ['PATH_INFO'].startswith(prefix):
            environ['SCRIPT_NAME'], environ['PATH_INFO'] = prefix, environ['PATH_INFO'].removeprefix(prefix)
        return application(environ, start_response)
    return call


def _one(operation, sent, values, body, header, allowed, found):
    examples = int(os.environ.get('KODIAK_FUZZ_EXAMPLES') or EXAMPLES)
    settings = hypothesis.settings(
        max_examples=examples, deadline=None, database=None, derandomize='KODIAK_FUZZ_EXAMPLES' not in os.environ,
        phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck))
    changes = operation.method.upper() not in ('GET', 'HEAD')
    names = {parameter.name for parameter in operation.path_parameters}
    known = values(operation.path, names)

    def attempt(case, data):
        nonlocal known
        if case.path_parameters and data.draw(st.integers(0, 4)):
            if changes:
                known = values(operation.path, names)
            for name in case.path_parameters:
                if known.get(name):
                    case.path_parameters[name] = known[name][data.draw(st.integers(0, len(known[name]) - 1))]
        if body is not None and data.draw(st.booleans()):
            case.body = data.draw(body)
        more = data.draw(header) if header is not None else {}
        try:
            response = case.call(headers={**sent, **more})
            if response.status_code not in allowed:
                case.validate_response(response, checks=_CHECKS)
        except (Exception, failures.FailureGroup) as error:  # what reaches here is a fault of the service, whatever it is
            if len(found) < MOST:
                found.append(f'{operation.label} path={case.path_parameters!r:.300} query={case.query!r:.300} '
                             f'body={case.body!r:.600} headers={more!r:.300}: {error}')

    modes = [GenerationMode.POSITIVE]
    # Any text is a valid part of a path; what has neither query nor body cannot be wrong.
    if operation.query or operation.body:
        modes.append(GenerationMode.NEGATIVE)
    for mode in modes:
        strategy = operation.as_strategy(generation_mode=mode)
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # neither can a body be that may be anything
            settings(hypothesis.given(strategy, st.data())(attempt))()
