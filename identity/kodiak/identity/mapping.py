"""The mapping engine: from what an identity provider asserts of a person to who that is here.

Rules are Keystone's: each has ``remote`` requirements, all of which an assertion must meet, and ``local`` values, in which
``{0}`` stands for what the first requirement without a yes-or-no condition found, ``{1}`` for the second, and so on.
"""
import dataclasses
import re

import orjson

from kodiak.common import errors
from kodiak.common.api import schema

CONDITIONS = ('any_one_of', 'not_any_of', 'blacklist', 'whitelist')
_STRINGS = {'type': 'array', 'items': {'type': 'string'}}
_DOMAIN = schema.obj({'id': schema.STRING, 'name': schema.STRING}, extra=False)
_REMOTE = {
    **schema.obj({'type': schema.STRING, **dict.fromkeys(CONDITIONS, _STRINGS), 'regex': schema.BOOLEAN}, ['type']),
    'not': {'anyOf': [{'required': [one, other]} for index, one in enumerate(CONDITIONS) for other in CONDITIONS[index + 1:]]}}
_LOCAL = schema.obj({
    'user': schema.obj({'id': schema.STRING, 'name': schema.STRING, 'email': schema.STRING, 'domain': _DOMAIN,
                        'type': {'enum': ['ephemeral', 'local']}}),
    'group': schema.obj({'id': schema.STRING, 'name': schema.STRING, 'domain': _DOMAIN}),
    'groups': schema.STRING, 'group_ids': schema.STRING, 'domain': _DOMAIN,
    'projects': schema.array(schema.obj({
        'name': schema.STRING, 'domain': _DOMAIN,
        'roles': schema.array(schema.obj({'name': schema.STRING, 'domain': _DOMAIN}, ['name']))}, ['name', 'roles']))})
RULES = {'type': 'array', 'minItems': 1, 'items': schema.obj({
    'local': {'type': 'array', 'items': _LOCAL}, 'remote': {'type': 'array', 'minItems': 1, 'items': _REMOTE}},
    ['local', 'remote'])}
_check = schema.Validator(schema.wrap('rules', RULES))


@dataclasses.dataclass
class Mapped:
    """Who somebody is: ``user`` (``id``, ``name``, ``email``, ``domain``, ``type``, each optional), ``group_ids``, ``group_names``
    (``[(name, domain)]``), ``projects`` (``[{name, roles, domain}]``, to be made for the user)."""

    user: dict = dataclasses.field(default_factory=dict)
    group_ids: list = dataclasses.field(default_factory=list)
    group_names: list = dataclasses.field(default_factory=list)
    projects: list = dataclasses.field(default_factory=list)


def validate(rules):
    """Refuse rules that are malformed, whose expressions don't compile or whose placeholders have no source."""
    _check({'rules': rules})
    for rule in rules:
        for requirement in rule['remote']:
            if requirement.get('regex'):
                for condition in CONDITIONS:
                    for pattern in requirement.get(condition, ()):
                        _compiled(pattern)
        sources = sum(not ('any_one_of' in requirement or 'not_any_of' in requirement) for requirement in rule['remote'])
        for text in _texts(rule['local']):
            for number in re.findall(r'{(\d*)}', text):
                if not number or int(number) >= sources:
                    raise errors.BadRequest(f'Invalid input for field/attribute mapping.rules: {text} refers to a value that no '
                                            'remote requirement of its rule supplies.')


def _compiled(pattern):
    try:
        return re.compile(pattern)
    except re.error as error:
        raise errors.BadRequest(f'Invalid input for field/attribute mapping.rules: {pattern} is no regular expression: {error}.'
                                ) from None


def _texts(value):
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def apply(rules, assertion):
    """Whom ``assertion`` speaks of: a :class:`Mapped`.

    :param assertion: attribute to a list of texts, or to one text in which several values are separated by ``;``.

    :raises Unauthorized: if no rule fits.
    """
    found, any_fits = Mapped(), False
    for rule in rules:
        values = _meets(rule['remote'], assertion)
        if values is None:
            continue
        any_fits = True
        for local in rule['local']:
            _take(found, local, values)
    if not any_fits:
        raise errors.Unauthorized('Could not map any federated user properties to identity values.')
    if not found.user.get('name') and not found.user.get('id') and assertion.get('REMOTE_USER'):
        found.user['name'] = _joined(assertion['REMOTE_USER'])
    if not found.user.get('name') and not found.user.get('id'):
        raise errors.Unauthorized('Could not map user while setting an ephemeral user identity: the mapping names none.')
    return found


def _meets(requirements, assertion):
    """The values for the placeholders if all requirements are met, else None. Each is a text or a list of them."""
    values = []
    for requirement in requirements:
        given = assertion.get(requirement['type'])
        if not given:
            return None
        if isinstance(given, str):
            given = [part for part in given.split(';') if part]
        matches = _matcher(requirement)
        if 'any_one_of' in requirement:
            if not any(matches(each) for each in given):
                return None
        elif 'not_any_of' in requirement:
            if any(matches(each) for each in given):
                return None
        elif 'blacklist' in requirement:
            values.append([each for each in given if not matches(each)])
        elif 'whitelist' in requirement:
            values.append([each for each in given if matches(each)])
        else:
            values.append(given[0] if len(given) == 1 else given)
    return values


def _matcher(requirement):
    wanted = next((requirement[condition] for condition in CONDITIONS if condition in requirement), ())
    if requirement.get('regex'):
        patterns = [re.compile(pattern) for pattern in wanted]
        return lambda value: any(pattern.search(value) for pattern in patterns)
    wanted = set(wanted)
    return lambda value: value in wanted


def _fill(text, values):
    """A text with its placeholders filled in; one that is nothing but a placeholder may become a list."""
    whole = re.fullmatch(r'{(\d+)}', text)
    if whole:
        return values[int(whole[1])]

    def one(match):
        return _joined(values[int(match[1])])
    return re.sub(r'{(\d+)}', one, text)


def _joined(value):
    return value if isinstance(value, str) else ';'.join(value)


def _text(text, values):
    return _joined(_fill(text, values))


def _many(text, values):
    value = _fill(text, values)
    return [value] if isinstance(value, str) else value


def _filled(value, values):
    if isinstance(value, str):
        return _text(value, values)
    if isinstance(value, dict):
        return {name: _filled(inner, values) for name, inner in value.items()}
    return [_filled(inner, values) for inner in value]


def _group(text, domain):
    """``(name, domain)`` of a group; another cloud says both as ``JSON:{"name": ..., "domain": {"name": ...}}``.

    A domain that the rule names holds all the same: nobody's words lead out of it.
    """
    if not text.startswith('JSON:'):
        return text, domain
    try:
        said = orjson.loads(text[5:])
        return str(said['name']), domain or {'name': str(said['domain']['name'])}
    except (ValueError, KeyError, TypeError):
        raise errors.Unauthorized('The assertion names a group in a form that cannot be read.') from None


def _take(found, local, values):
    if 'user' in local and not found.user:
        found.user = _filled(local['user'], values)
    if 'group' in local:
        group = _filled(local['group'], values)
        if group.get('id'):
            found.group_ids.append(group['id'])
        elif group.get('name'):
            found.group_names.append((group['name'], group.get('domain')))
    if 'groups' in local:
        domain = _filled(local['domain'], values) if 'domain' in local else None
        found.group_names += [_group(name, domain) for name in _many(local['groups'], values) if name]
    if 'group_ids' in local:
        found.group_ids += [group_id for group_id in _many(local['group_ids'], values) if group_id]
    if 'projects' in local:
        found.projects += _filled(local['projects'], values)
