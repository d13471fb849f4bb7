"""The OpenAPI 3.1 document and the API reference of an :class:`~kodiak.common.api.Api`."""
from .versions import text_of


def document(api, version='1'):
    """The OpenAPI document, as a dictionary.

    Endpoints that share a path and method (Nova's actions, handlers for other microversions) become one
    operation whose bodies and responses are alternatives.
    """
    paths = {}
    for endpoint in api.endpoints:
        operation = paths.setdefault(api.prefix + endpoint.openapi_path, {}).setdefault(endpoint.method.lower(), None)
        described = _operation(endpoint, api.fault_schema)
        if operation is not None:
            described = _merged(operation, described)
        paths[api.prefix + endpoint.openapi_path][endpoint.method.lower()] = described
    return {
        'openapi': '3.1.0',
        'info': {'title': api.title, 'version': version, 'license': {'name': 'Apache 2.0', 'identifier': 'Apache-2.0'}},
        'paths': paths,
        'components': {'securitySchemes': {'token': {'type': 'apiKey', 'in': 'header', 'name': 'X-Auth-Token'}}},
        'security': [{'token': []}],
    }


def _operation(endpoint, fault_schema=None):
    operation = {
        'summary': endpoint.summary, 'tags': [endpoint.tag],
        'parameters': [{'name': name, 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
                       for name in endpoint.parameters]
        + [{'name': name, 'in': 'query', 'schema': schema} for name, schema in (endpoint.query or {}).items()],
        'responses': {str(endpoint.status): _content('Success', endpoint.response),
                      **_faults(fault_schema)},
    }
    if endpoint.body is not None:
        operation['requestBody'] = {'required': not endpoint.optional_body,
                                    'content': {media: {'schema': endpoint.body}
                                                for media in endpoint.media or ('application/json',)}}
    if endpoint.raw:
        operation['requestBody'] = {'content': {media: {} for media in endpoint.media or ('application/octet-stream',)}}
    if endpoint.public:
        operation['security'] = []
    else:
        operation['x-policy'] = {'rule': endpoint.rule, 'default': endpoint.check}
    if endpoint.since or endpoint.until:
        operation['x-microversions'] = {'since': text_of(endpoint.since) if endpoint.since else None,
                                        'until': text_of(endpoint.until) if endpoint.until else None}
    if endpoint.action:
        operation['x-actions'] = [endpoint.action]
    return operation


def _faults(schema):
    said = 'A fault in the shape of this service'
    if schema is None:
        return {'default': {'description': said}}
    return {'4XX': _content(said, schema), '5XX': _content(said, schema), 'default': {'description': 'A redirection'}}


def _content(description, schema):
    found = {'description': description}
    if schema is not None:
        found['content'] = {'application/json': {'schema': schema}}
    return found


def _alternatives(first, second):
    known = first['anyOf'] if set(first) == {'anyOf'} else [first]
    return first if second in known else {'anyOf': [*known, second]}


def _merged(first, second):
    merged = dict(first)
    merged['summary'] = first['summary'] if second['summary'] in first['summary'] else f"{first['summary']}; {second['summary']}"
    if 'requestBody' in second:
        ours = first.get('requestBody', second['requestBody'])
        theirs = second['requestBody']['content'].get('application/json', {}).get('schema')
        mine = ours['content'].get('application/json', {}).get('schema')
        if mine is not None and theirs is not None:
            ours = {**ours, 'content': {'application/json': {'schema': _alternatives(mine, theirs)}}}
        merged['requestBody'] = ours
    names = {parameter['name'] for parameter in first['parameters']}
    merged['parameters'] = first['parameters'] + [p for p in second['parameters'] if p['name'] not in names]
    responses = dict(first['responses'])
    for status, response in second['responses'].items():
        if status in responses and 'content' in responses[status] and 'content' in response:
            both = _alternatives(responses[status]['content']['application/json']['schema'],
                                 response['content']['application/json']['schema'])
            responses[status] = {**responses[status], 'content': {'application/json': {'schema': both}}}
        else:
            responses.setdefault(status, response)
    merged['responses'] = responses
    if 'x-actions' in first or 'x-actions' in second:
        merged['x-actions'] = sorted({*first.get('x-actions', ()), *second.get('x-actions', ())})
    return merged


def reference(api):
    """The API reference of one service as reStructuredText, from its declarations."""
    lines = [api.title, '=' * len(api.title), '']
    for tag in dict.fromkeys(endpoint.tag for endpoint in api.endpoints):
        lines += [tag, '-' * len(tag), '']
        for endpoint in (e for e in api.endpoints if e.tag == tag):
            heading = f'{endpoint.method} {api.prefix}{endpoint.openapi_path}'
            if endpoint.action:
                heading += f' ({endpoint.action})'
            lines += [heading, '~' * len(heading), '', f'{endpoint.summary}.' if endpoint.summary else '', '']
            lines.append(f':Status: {endpoint.status}')
            lines.append(':Policy: public' if endpoint.public else f':Policy: ``{endpoint.rule}``, by default ``{endpoint.check}``')
            if endpoint.since or endpoint.until:
                since = text_of(endpoint.since) if endpoint.since else 'the first'
                lines.append(f':Microversions: {since} to {text_of(endpoint.until) if endpoint.until else "the latest"}')
            lines.append('')
            for title, schema in (('Request', endpoint.body), ('Response', endpoint.response)):
                fields = _fields(schema)
                if fields:
                    lines += [f'{title}:', '', *fields, '']
    return '\n'.join(lines).rstrip() + '\n'


def _fields(schema, depth=0):
    if not isinstance(schema, dict):
        return []
    lines = []
    for name, inner in (schema.get('properties') or {}).items():
        kind = inner.get('type', 'any') if isinstance(inner, dict) else 'any'
        kind = ' or '.join(kind) if isinstance(kind, list) else kind
        needed = ', required' if name in schema.get('required', ()) else ''
        lines.append(f'{"  " * depth}- ``{name}`` ({kind}{needed})')
        deeper = _fields(inner, depth + 1) or _fields(inner.get('items') if isinstance(inner, dict) else None, depth + 1)
        if deeper and depth < 3:
            lines += ['', *deeper, '']
    return lines
