"""Allocation candidates."""
import re

from kodiak.common import api, errors
from kodiak.common.api import schema

from ...models import placement as models
from ...placement import classes, trees
from ...placement import query as queries
from . import common

routes = api.Routes('allocation candidates')
FEATURES = {'required': (1, 17), 'member_of': (1, 21), 'in_tree': (1, 31), 'limit': (1, 16), 'group_policy': (1, 25),
            'root_required': (1, 35), 'same_subtree': (1, 36)}


def _refuse(name):
    raise errors.BadRequest("Invalid query string parameters: Additional properties are not allowed "
                            f"('{name}' was unexpected)")


def _query(req):
    """The :class:`~kodiak.compute.placement.query.Query` of a request's query string."""
    version, groups, arguments = req.version, {}, req.http.args
    for name in arguments:
        if name in FEATURES and version < FEATURES[name]:
            _refuse(name)
        if name in ('limit', 'group_policy', 'root_required', 'same_subtree'):
            continue
        match = common.SUFFIX.match(name)
        if not match or (match[2] and (version < (1, 25) or (version < (1, 33) and not re.fullmatch('[1-9][0-9]*', match[2])))):
            _refuse(name)
        if match[2] and match[1] == 'in_tree' and version < (1, 31):
            _refuse(name)
        group = groups.setdefault(match[2] or '', queries.Group())
        texts = arguments.getlist(name)
        if match[1] == 'resources':
            group.resources = common.resources_of(texts[-1])
        elif match[1] == 'required':
            group.required, group.forbidden = common.traits_of(texts, version)
        elif match[1] == 'member_of':
            group.member_of, group.forbidden_aggregates = common.aggregates_of(texts, version)
        else:
            if not common.is_uuid(texts[-1]):
                raise errors.BadRequest("Invalid query string parameters: Expected 'in_tree' parameter to be a UUID. "
                                        f'Got: {texts[-1]}')
            group.in_tree = texts[-1]
    query = queries.Query(groups, arguments.get('group_policy'))
    _bind(query, arguments)
    _check(query, version)
    return query


def _bind(query, arguments):
    if 'limit' in arguments:
        if not schema.natural(arguments['limit']):
            raise errors.BadRequest(f"Invalid query string parameters: '{arguments['limit']}' does not match '^[1-9][0-9]*$'")
        query.limit = int(arguments['limit'])
    if len(arguments.getlist('root_required')) > 1:
        raise errors.BadRequest('Invalid query string parameters: root_required may be given once only.')
    if 'root_required' in arguments:
        required, query.root_forbidden = common.traits_of([arguments['root_required']], (1, 38))
        query.root_required = set().union(*required)
    for text in arguments.getlist('same_subtree'):
        suffixes = text.strip().split(',')
        unknown = [suffix for suffix in suffixes if suffix not in query.groups or not suffix]
        if unknown:
            raise errors.BadRequest(f"Real suffixes should be specified in same_subtree: {', '.join(unknown)}")
        query.same_subtree.append(suffixes)


def _check(query, version):
    grouped = {suffix for suffixes in query.same_subtree for suffix in suffixes}
    if not any(group.resources for group in query.groups.values()):
        raise errors.BadRequest('At least one request group (`resources` or `resources{$S}`) is required.')
    for suffix, group in query.groups.items():
        if not group.resources and suffix not in grouped:
            orphan = next((name for name, value in (
                ('required', group.required or group.forbidden), ('member_of', group.member_of or group.forbidden_aggregates),
                ('in_tree', group.in_tree)) if value), 'resources')
            raise errors.BadRequest(f'{orphan} parameters specify no resources: {orphan}{suffix}. All traits parameters must be '
                                    f'associated with resources. Found the following orphaned keys: {orphan}{suffix}')
    granular = [suffix for suffix, group in query.groups.items() if suffix and group.resources]
    if len(granular) > 1 and not query.group_policy:
        raise errors.BadRequest('The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.',
                                kind='placement.query.missing_value')
    if query.group_policy not in (None, 'none', 'isolate'):
        raise errors.BadRequest(f"Invalid query string parameters: '{query.group_policy}' is not one of ['none', 'isolate']")


@routes.get('/allocation_candidates', rule='placement:allocation_candidates:list', default=common.SERVICE, since='1.10',
            response=schema.obj({'allocation_requests': schema.array({}), 'provider_summaries': {'type': 'object'}}),
            summary='List allocation candidates')
def list_candidates(req):
    query = _query(req)
    with req.db.read() as connection:
        named_classes = {name for group in query.groups.values() for name in group.resources}
        unheard = named_classes - set(classes.STANDARD_CLASSES)
        if unheard:
            classes.require_classes(connection, unheard)
        named = set().union(query.root_required, query.root_forbidden, *(
            set().union(group.forbidden, *group.required) for group in query.groups.values()))
        unknown = classes.unknown_traits(connection, named) if named else ()
        if unknown:
            raise errors.BadRequest(f'Invalid traits in required parameter: No such trait(s): {", ".join(unknown)}.')
        if query.root_required & query.root_forbidden:
            raise errors.BadRequest('Conflicting required and forbidden traits found in root_required.')
        if queries.is_flat(connection, query):
            return common.stamped(req, queries.flat(connection, query, req.version))
        for group in query.groups.values():
            if group.in_tree and not connection.execute(
                    models.providers.select().where(models.providers.c.uuid == group.in_tree)).first():
                return common.stamped(req, {'allocation_requests': [], 'provider_summaries': {}})
        forest, found = trees.search(connection, query, nested=req.at_least(1, 29))
        return common.stamped(req, trees.render(forest, found, query, req.version))
