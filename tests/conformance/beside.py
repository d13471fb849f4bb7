"""Makes the same requests of two identity services and says where their answers differ: beside.py URL OTHER_URL REQUESTS.

URL is ours, OTHER_URL a stock Keystone's, both fresh, with an administrator ``admin`` of project ``admin`` whose password is in
``OS_PASSWORD``. REQUESTS (``identity_requests.jsonl``) has one request a line: ``method``, ``path``, and where it needs them
``body``, ``headers``, ``as`` (whose token: a name that was kept as ``tok_<name>``; null for none) and ``keep`` (a name to a
member of the answer, or to ``@`` and a header). ``<name>`` in a request stands for what was kept under that name on that side.

An answer differs by its status, or, where both are good, by the members that its body has and by their types. Of a list all
items count together, so its order doesn't matter. What is reported is to be judged: either may be right.
"""
import json
import os
import re
import sys

import requests


class Side:
    """One of the services: what its answers gave is kept in ``kept``."""

    def __init__(self, url):
        self.url, self.kept, self.session = url.rstrip('/').removesuffix('/v3'), {}, requests.Session()

    def filled(self, text):
        """A text with its placeholders filled in."""
        return re.sub(r'<(\w+)>', lambda found: str(self.kept.get(found[1], 'missing-' + found[1])), text)

    def ask(self, asked):
        """``(status, body)`` of a request; the body is parsed where it is JSON."""
        headers = {'Content-Type': 'application/json', **asked.get('headers', {})}
        who = self.kept.get(f"tok_{asked.get('as', 'admin')}")
        if who:
            headers['X-Auth-Token'] = who
        body = self.filled(json.dumps(asked['body'])) if 'body' in asked else None
        answer = self.session.request(asked['method'], self.url + self.filled(asked['path']), data=body, timeout=60,
                                      headers={name: self.filled(value) for name, value in headers.items()})
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.ok:
            for name, where in asked.get('keep', {}).items():
                self.kept[name] = answer.headers.get(where[1:]) if where.startswith('@') else member(found, where)
        return answer.status_code, found


def member(value, path):
    """The member of a body that a path of names and numbers leads to."""
    for part in path.split('.'):
        value = value[int(part)] if part.isdigit() else value[part]
    return value


def shape(value, path=''):
    """``{path: set of type names}`` of all that a body has."""
    if isinstance(value, dict):
        found = {}
        for name, inner in value.items():
            # Members that are named by ids are one kind of thing.
            for where, types in shape(inner, f"{path}.{'<id>' if re.fullmatch('[0-9a-f]{32,64}', name) else name}").items():
                found.setdefault(where, set()).update(types)
        return found or {path: {'object'}}
    if isinstance(value, list):
        found = {}
        for inner in value:
            for where, types in shape(inner, path + '[]').items():
                found.setdefault(where, set()).update(types)
        return found or {path: {'list'}}
    return {path: {type(value).__name__}}


def differences(ours, theirs):
    """Sentences."""
    if ours[0] != theirs[0]:
        return [f'{ours[0]} here, {theirs[0]} there', f'here: {json.dumps(ours[1])[:200]}',
                f'there: {json.dumps(theirs[1])[:200]}']
    if ours[0] >= 300:
        return []
    here, there = ({where: '/'.join(sorted(types)) for where, types in shape(body).items()} for _, body in (ours, theirs))
    return [f"{where}: {here.get(where, 'nothing')} here, {there.get(where, 'nothing')} there"
            for where in sorted(here.keys() | there.keys()) if here.get(where) != there.get(where)]


def login(scope):
    """The request of an administrator's token."""
    user = {'name': 'admin', 'domain': {'id': 'default'}, 'password': os.environ['OS_PASSWORD']}
    return {'method': 'POST', 'path': '/v3/auth/tokens', 'as': None, 'body': {'auth': {
        'identity': {'methods': ['password'], 'password': {'user': user}}, 'scope': scope}}}


def main(url, other, path):
    """Print what differs."""
    sides = [Side(url), Side(other)]
    scopes = {'admin': {'project': {'name': 'admin', 'domain': {'id': 'default'}}}, 'system': {'system': {'all': True}}}
    for name, scope in scopes.items():
        for side in sides:
            status, _ = side.ask({**login(scope), 'keep': {'tok_' + name: '@X-Subject-Token'}})
            assert status == 201, f'{side.url}: {status} for the administrator: is OS_PASSWORD right?'
    count = differing = 0
    with open(path, encoding='utf-8') as lines:
        for asked in map(json.loads, lines):
            count += 1
            found = differences(*(side.ask(asked) for side in sides))
            if found:
                differing += 1
                print(asked['method'], asked['path'], json.dumps(asked.get('body', ''))[:140])
                print('\n'.join('    ' + line for line in found[:8]))
    print(f'{count} requests, {differing} answers differ')


if __name__ == '__main__':
    main(*sys.argv[1:])
