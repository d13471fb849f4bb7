"""What the modules of the API share: lists, links, attributes that users add, references to domains."""
import re

import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common.api import listing, schema

from ..models import NO_DOMAIN

ID = {'type': 'string', 'minLength': 1, 'maxLength': 64, 'pattern': r'^[a-zA-Z0-9-]+$'}
NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255, 'pattern': r'[\S]+'}
SHORT_NAME = {**NAME, 'maxLength': 64}
TEXT = {'type': ['string', 'null']}
FLAG = {'type': 'boolean'}
URL = {'type': 'string', 'minLength': 1, 'maxLength': 225, 'pattern': '^[a-zA-Z0-9+.-]+:.+'}
LINKS = schema.obj({'self': schema.TEXT, 'next': schema.TEXT, 'previous': schema.TEXT}, ['self'], extra=True)

NO = ('0', 'false', 'no', 'off', 'f', 'n')
_LIKE = {'contains': '%{}%', 'startswith': '{}%', 'endswith': '%{}'}


def one_of(name, properties, required=()):
    """The response schema ``{name: {...}}`` of one resource, which may have attributes beyond ``properties``."""
    return schema.wrap(name, schema.obj({'id': schema.STRING, **properties}, ['id', *required], extra=True))


def many_of(name, properties=None):
    """The response schema of a list."""
    return schema.obj({name: schema.array(schema.obj(properties or {}, extra=True)), 'links': LINKS, 'truncated': FLAG},
                      [name, 'links'])


def body(name, properties, required=(), extra=True):
    """The request schema ``{name: {...}}``; attributes that identity doesn't know are kept."""
    return {'type': 'object', 'properties': {name: schema.obj(properties, required, extra)}, 'required': [name]}


def text_filters(**columns):
    """Filters on text columns: equality, and Keystone's ``name__contains``, ``name__istartswith`` and so on."""
    found = {}
    for name, column in columns.items():
        found[name] = column
        found[name + '__iexact'] = _inexact(column, '{}', True)
        for word, form in _LIKE.items():
            found[f'{name}__{word}'] = _inexact(column, form, False)
            found[f'{name}__i{word}'] = _inexact(column, form, True)
    return found


def _inexact(column, form, fold):
    def condition(values):
        value = re.sub(r'([\\%_])', r'\\\1', values[0])
        pattern = form.format(value)
        if fold:
            return sa.func.lower(column).like(pattern.lower(), escape='\\')
        # Whether LIKE minds case is the database's choice: SQLite and MySQL don't.
        return column.like(pattern, escape='\\')
    return condition


def flag_filter(column):
    """A filter on a boolean column. As in Keystone, a name without a value (``?enabled``) and all but 0 mean true."""
    def condition(values):
        return column.is_(values[-1].strip().lower() not in NO)
    return condition


def flag(req, name):
    """Whether a query parameter is there and isn't 0; no value at all means yes."""
    values = req.http.args.getlist(name)
    return bool(values) and values[-1].strip().lower() not in NO


def listing_of(key, filters, order=None):
    """How a resource is listed: all of it unless ``limit`` is given, ordered by its id."""
    return api.Listing(key, {'id': key, **(order or {})}, [('id', 'asc')], filters=filters, paged=False, max_limit=10000)


def parameters(how, **more):
    """The query properties of a list."""
    return how.parameters(**more)


def page(req, how, connection, select, name, view, visible=None, most=None):
    """The answer of a list: ``{name: [...], links}``; ``view`` makes what is shown of a row.

    :param most: how many there are at most, where the request itself gives no ``limit``; ``truncated`` says that there are more.
    """
    cut = most is not None and 'limit' not in req.query
    rows, more = how.page(connection, select, {**req.query, 'limit': most} if cut else req.query, visible)
    found = envelope(req, name, [view(row) for row in rows], listing.next_url(req, rows[-1].id) if more and rows else None)
    if cut and more:
        found['truncated'] = True
    return found


def envelope(req, name, items, following=None):
    """The answer of a list."""
    query = req.http.query_string.decode('latin-1')
    return {name: items, 'links': {'self': req.url + ('?' + query if query else ''), 'previous': None, 'next': following}}


def extra_of(body, known):
    """Attributes of a request's body that are not columns."""
    return {name: value for name, value in body.items() if name not in known and name not in ('id', 'links')}


def merged(row, changes, columns, known):
    """Column values of a PATCH: those of ``columns`` that it names, and the row's extra attributes with its own.

    :param known: names that are no extra attributes.
    """
    values = {name: changes[name] for name in columns if name in changes}
    added = extra_of(changes, known)
    if added:
        values['extra'] = {**row['extra'], **added}
    return values


def own_domain(req):
    """The domain that a request without ``domain_id`` means: that of its token."""
    ctx = req.ctx
    return ctx.domain_id or ctx.project_domain_id or 'default'


def list_domain(req):
    """The domain that a list is restricted to, or None: a token of a domain sees that domain."""
    return req.ctx.domain_id or (req.query.get('domain_id') or [None])[-1]


def domain_or_none(domain_id):
    """``domain_id`` as the API shows it: null where there is none."""
    return None if domain_id == NO_DOMAIN else domain_id


def same_id(req_id, body_id):
    """Refuse a body whose id is another than the path's."""
    if body_id is not None and body_id != req_id:
        raise errors.BadRequest('Cannot change the id of a resource.')


def clean(name, field='name'):
    """A name without blanks around it; ``BadRequest`` if nothing is left."""
    name = name.strip()
    if not name:
        raise errors.BadRequest(f'Invalid input for field/attribute {field}: it must not be blank.')
    return name


def conflict(kind, name):
    """The 409 of a name that is taken."""
    return errors.Conflict(f'Conflict occurred attempting to store {kind} - it already has an entry with name {name}.')


def immutable(row, kind):
    """Refuse to touch a resource whose option ``immutable`` is set."""
    if row['options'].get('immutable'):
        raise errors.Forbidden(f"Cannot modify immutable {kind} {row['id']}: unset its option immutable first.")


def immutable_patch(row, changes, kind):
    """As :func:`immutable`, but the option itself may be unset."""
    if row['options'].get('immutable') and (set(changes) - {'id'} != {'options'} or set(changes['options']) != {'immutable'}):
        immutable(row, kind)


def with_options(row, changes):
    """The options of a resource after a PATCH: null removes one."""
    found = {**row['options'], **(changes.get('options') or {})}
    return {name: value for name, value in found.items() if value is not None}


IMMUTABLE = {'type': 'object', 'properties': {'immutable': {'type': ['boolean', 'null']}}, 'additionalProperties': False}


def missing(req, message, **owner):
    """Answer for what isn't there: 404 to those who could see it, if it belonged to ``owner``, and 403 to the others."""
    req.target = owner
    req.authorize(owner)
    raise errors.NotFound(message)


def telling(load):
    """``load``, but everybody is told what isn't there; for the few endpoints where Keystone does."""
    def loaded(req, **parameters):
        try:
            return load(req, **parameters)
        except errors.NotFound as error:
            raise told(error.message) from None
    return loaded


def told(message):
    """The 404 of what has an id that only those know who may: everybody is told."""
    found = errors.NotFound(message)
    found.told = True
    return found
