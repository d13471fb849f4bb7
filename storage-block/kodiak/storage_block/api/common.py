"""What the modules of the block storage API share: loading rows for their owner, links, lists, the values that bodies take."""
import ast
import re

import orjson
import sqlalchemy as sa
from sqlalchemy.ext import compiler as sql

from kodiak.common import db, errors
from kodiak.common.api import listing, schema
from kodiak.storage_block import store
from kodiak.storage_block.models import backends

PROJECT_READER = '((role:reader or role:member) and project_id:%(project_id)s) or role:admin or role:service'
PROJECT_MEMBER = '(role:member and project_id:%(project_id)s) or role:admin or role:service'
READER = 'role:reader or role:member or role:admin or role:service'
MEMBER = 'role:member or role:admin or role:service'
ADMIN = 'role:admin'
SERVICE = 'role:service or role:admin'
ALL_PROJECTS = 'volume:get_all_tenants'

BOOLEAN = {'anyOf': [{'type': 'boolean'}, {'type': 'string', 'format': 'boolean-like'}, {'type': 'integer', 'enum': [0, 1]}]}
NAME = {'type': ['string', 'null'], 'maxLength': 255}
SIZE = {'anyOf': [{'type': 'integer', 'minimum': 1, 'maximum': 2147483647},
                  {'type': 'string', 'pattern': '^[0-9]+$', 'minLength': 1, 'maxLength': 10}]}
METADATA = {'type': 'object', 'additionalProperties': False,
            'patternProperties': {'^[^\x00]{1,255}$': {'type': 'string', 'maxLength': 255}}}
NULL_METADATA = {**METADATA, 'type': ['object', 'null']}
SPECS = {'type': 'object', 'additionalProperties': False,
         'patternProperties': {r'^[a-zA-Z0-9\-_:. ]{1,255}$': {'type': ['string', 'number', 'boolean'], 'maxLength': 255}}}
LINKS = schema.array(schema.obj({'rel': schema.STRING, 'href': schema.STRING}))
OBJECT = {'type': 'object'}
IDENTIFIER = re.compile(r'^[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$')


def is_uuid(text):
    """True for anything that could be a UUID."""
    return isinstance(text, str) and IDENTIFIER.match(text) is not None


def check_uuid(text, field):
    """400 that names the field where ``text`` is no UUID (None passes)."""
    if text is not None and not is_uuid(text):
        raise errors.BadRequest(f"Invalid input for field/attribute {field}: '{text}' is not a 'uuid'.")
    return text


def check_zone(connection, conf, name):
    """400 where there is no availability zone of that name (None passes)."""
    if name and name != conf.storage_block.default_availability_zone and connection.scalar(
            sa.select(backends.c.name).where(backends.c.zone == name).limit(1)) is None:
        raise errors.BadRequest(f"Availability zone '{name}' is invalid.", kind='InvalidAvailabilityZone')


def stripped(text):
    """A name without blanks around it; None stays None."""
    return text and text.strip()


def truth(value, field):
    """The boolean that a body's value means; None stays None."""
    return None if value is None else schema.boolean(value, field)


def size_of(value, field='size'):
    """The size in GiB that a body names."""
    return schema.integer(value, field, 1, 2147483647)


def is_service(req):
    """True where a service of this cloud asks, with its own token or beside a user's."""
    # Anybody may send a token of theirs beside the other: only its roles make it a service's.
    return 'service' in req.ctx.roles or 'service' in (req.ctx.service_roles or ())


def may_see(req, row):
    """True if the caller may know of a row."""
    return row['project_id'] == req.ctx.project_id or req.ctx.is_admin or 'service' in req.ctx.roles


def loader(table, parameter):
    """An endpoint's ``load`` for rows of projects: ``NotFound`` for those of others."""
    def load(req, **parameters):
        with req.db.read() as connection:
            row = store.get(connection, table, parameters[parameter])
        if row is None or not may_see(req, row):
            raise store.not_found(table, parameters[parameter])
        return row
    return load


def url(req, path):
    """The URL of something of this API, as the client reaches it."""
    return f'{req.base_url}/v3/{req.ctx.project_id}/{path}'


def links(req, path):
    """The links of one resource."""
    return [{'rel': 'self', 'href': f'{req.base_url}/v3/{req.ctx.project_id}/{path}'},
            {'rel': 'bookmark', 'href': f'{req.base_url}/{req.ctx.project_id}/{path}'}]


def linker(req, kind):
    """``function(id) -> links`` for a list: what does not change is put together once."""
    root, project = req.base_url, req.ctx.project_id
    own, bookmark = f'{root}/v3/{project}/{kind}/', f'{root}/{project}/{kind}/'
    return lambda row_id: [{'rel': 'self', 'href': own + row_id}, {'rel': 'bookmark', 'href': bookmark + row_id}]


def page(req, lister, connection, select, name, render, visible=None, count=None):
    """One page of a list as a body: ``{name: [...]}`` with the link to the next page, and the count where it is asked for."""
    query = req.query
    offset = query.get('offset')
    if offset:
        select = select.offset(offset)
    try:
        rows, _ = lister.page(connection, select, query, visible)
    except errors.BadRequest as error:
        if error.kind != 'MarkerNotFound':
            raise
        raise errors.NotFound(error.message, kind=error.kind) from None
    body = {name: [render(row) for row in rows]}
    # A page that is full has a next one, though that may be empty: so clients of this API expect it.
    if rows and len(rows) == lister.limit(query):
        body[name + '_links'] = [{'rel': 'next', 'href': url(
            req, req.http.path.strip('/') + '?' + listing.next_query(req, rows[-1].id, offset=None))}]
    if query.get('with_count') and req.at_least(3, 45):
        counted = sa.select(sa.func.count()).select_from(count)
        for condition in [*lister.conditions(query), *([] if visible is None else [visible])]:
            counted = counted.where(condition)
        body['count'] = connection.scalar(counted)
    return body


def scope(req, table):
    """The SQL condition for what a list shows: the caller's project, or all of them for an admin that asks for it."""
    if req.query.get('all_tenants') and req.allows(ALL_PROJECTS):
        asked = req.query.get('project_id')
        return sa.true() if not asked else table.c.project_id == asked
    return table.c.project_id == req.ctx.project_id


def parameters(lister, **more):
    """The query of an endpoint that lists."""
    return lister.parameters(offset={'type': 'integer', 'minimum': 0, 'maximum': 2 ** 63 - 1}, all_tenants=schema.BOOLEAN,
                             with_count=schema.BOOLEAN, project_id=schema.STRING, **more)


def text_filter(column):
    """A filter for ``name~``: contains."""
    def condition(values):
        return sa.and_(*(column.like(f'%{_escaped(value)}%', escape='\\') for value in values))
    return condition


def _escaped(value):
    return value.replace('\\', '\\\\').replace('%', '\\%').replace('_', '\\_')


def json_filter(column):
    """A filter for ``metadata={'key': 'value'}``: the JSON column has all these pairs."""
    def condition(values):
        found = []
        for value in values:
            for key, wanted in pairs(value).items():
                found.append(contains(column, key, wanted))
        return sa.and_(*found) if found else None
    return condition


def pairs(text):
    """The dictionary of a filter's text, in JSON's or Python's notation."""
    try:
        found = ast.literal_eval(text)
        if not isinstance(found, dict):
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise errors.BadRequest(f"Invalid filter value '{text[:80]}': it must be like {{'key': 'value'}}.") from None
    return {str(key): str(value) for key, value in found.items()}


def contains(column, key, value):
    """The SQL condition that a JSON column of texts has a pair: its text contains it, which no escaped text can."""
    pair = orjson.dumps({key: value}).decode()[1:-1]
    return Position(sa.type_coerce(column, sa.Text), pair) > 0


class Position(sa.sql.functions.GenericFunction):
    """Where a text is in another, 0 for nowhere, minding case, on each database."""

    type = sa.Integer()
    inherit_cache = True
    name = 'kodiak_position'


@sql.compiles(Position)
def _position(element, compiler, **kwargs):
    text, part = [compiler.process(clause, **kwargs) for clause in element.clauses]
    if compiler.dialect.name == 'sqlite':
        return f'instr({text}, {part})'
    if compiler.dialect.name == 'postgresql':
        return f'strpos({text}, {part})'
    return f'LOCATE(BINARY {part}, {text})'


def time_filter(column):
    """A filter for ``created_at=gt:2026-01-01T00:00:00,lt:...`` (from 3.60)."""
    signs = {'gt': column.__gt__, 'gte': column.__ge__, 'lt': column.__lt__, 'lte': column.__le__, 'eq': column.__eq__,
             'neq': column.__ne__}

    def condition(values):
        found = []
        for part in ','.join(values).split(','):
            sign, _, moment = part.strip().partition(':')
            if sign not in signs:
                sign, moment = 'eq', part.strip()
            try:
                found.append(signs[sign](db.parse_time(moment)))
            except ValueError:
                raise errors.BadRequest(f"Invalid filter value '{moment}': it must be a moment in ISO 8601.") from None
        return sa.and_(*found)
    return condition


def with_like(filters, *names):
    """Filters, and for each that compares a text with a column, or that is named, ``name~``: contains (from 3.34)."""
    found = dict(filters)
    for name, column in filters.items():
        if isinstance(column, sa.Column) and isinstance(column.type, sa.String) and (name in names or not names):
            found[name + '~'] = text_filter(column)
    return found


#: Parameters that each list has.
GENERAL = {*listing.RESERVED, 'offset', 'all_tenants', 'with_count', 'sort', 'project_id'}


def check_filters(req, known, since=None, operators=()):
    """Leave the filters in ``req.query`` that the caller may use.

    :param since: ``{name: the microversion that brought it}``. :param operators: names of those that only they may use.
    :raises BadRequest: from 3.31 on, there is another one, and no operator asks.
    """
    wrong = []
    for name in req.http.args:
        needed = (3, 34) if name.endswith('~') else (since or {}).get(name, (3, 0))
        if name not in GENERAL and (name not in known or req.version < needed or (name in operators and not req.ctx.is_admin)):
            req.query.pop(name, None)
            wrong.append(name)
    if wrong and req.version >= (3, 31) and not req.ctx.is_admin:
        raise errors.BadRequest(f"Invalid filters {','.join(wrong)} are found in query options.", kind='InvalidParameterValue')
