"""The attributes of resources: where each is stored, what a request may say of it, and who may.

A :class:`Field` is one attribute of a resource of the API. From a resource's fields follow the schemas of its bodies, its
filters and sort keys, the columns that are read for a view, and the policy rules of single attributes.
"""
import dataclasses
import ipaddress
import re
import typing

import orjson
import sqlalchemy as sa

from kodiak.common import db, errors
from kodiak.common.api import schema

UNSET = object()
REQUIRED = object()


def bad(name, value, reason):
    """400 that names the attribute."""
    text = repr(value)
    return errors.BadRequest(f'Invalid input for {name}. Reason: {text[:100]} {reason}.', kind='HTTPBadRequest')


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a value of an attribute looks like in a request, and what becomes of it.

    :param schema: JSON Schema. :param convert: ``function(value, attribute's name) -> value``; may raise ``BadRequest``.
    :param shown: JSON Schema of it in an answer, where that differs.
    """

    schema: dict
    convert: typing.Callable | None = None
    shown: dict | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """One attribute.

    :param name: as in the API (``binding:host_id``). :param kind: its :class:`Kind`.
    :param column: where it is stored; None: ``expression`` or nothing in the database.
    :param post: may stand in a create; :param put: in an update.
    :param default: the value of a create without it; UNSET: the domain sees nothing; REQUIRED.
    :param create_rule: policy of giving it in a create (check string), as ``update_rule`` and ``get_rule``.
    :param filter: True: by equality with the column; a function of the values; False.
    :param expression: what is selected, where that is not the column; a function of the asking project's id where it matters
        who asks.
    :param view: what makes the attribute of the selected value.
    """

    name: str
    kind: Kind
    column: typing.Any = None
    post: bool = True
    put: bool = True
    default: typing.Any = UNSET
    create_rule: str | None = None
    update_rule: str | None = None
    get_rule: str | None = None
    filter: typing.Any = True
    sort: bool = True
    expression: typing.Any = None
    view: typing.Callable | None = None
    key: str = ''
    hidden: bool = False              # taken in a request, never shown

    @property
    def target(self):
        """The name under which the domain knows it."""
        return self.key or (self.column.name if self.column is not None else self.name)

    def selected(self):
        """The expression to select, or None."""
        if self.hidden:
            return None
        source = self.expression if self.expression is not None else self.column
        if source is None:
            return None
        if isinstance(source.type, db.JSON):
            source = sa.type_coerce(source, sa.Text)
        return source.label(self.name)

    def viewer(self):
        """The function from the selected value to the attribute, or None where they are the same."""
        if self.view is not None:
            return self.view
        source = self.expression if self.expression is not None else self.column
        if isinstance(source.type, db.JSON):
            return json_or('{}' if self.kind.schema.get('type') == 'object' else '[]')
        if isinstance(source.type, sa.DateTime):
            return stamp
        return None


def json_or(empty):
    """JSON text from a column, into the answer as it is; ``empty`` where there is none."""
    nothing = orjson.Fragment(empty)
    return lambda text: nothing if text is None else orjson.Fragment(text)


json_or_null = json_or('null')


def stamp(moment):
    """A timestamp as the API writes it."""
    return None if moment is None else moment.isoformat(timespec='seconds') + 'Z'


def parse_time(text, name):
    """The naive UTC datetime of a query's text."""
    try:
        return db.parse_time(text)
    except ValueError:
        raise bad(name, text, 'is not a timestamp')


def _boolean(value, name):
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ('true', 'false', '1', '0'):
        return value.lower() in ('true', '1')
    raise bad(name, value, 'cannot be converted to boolean')


def _integer(value, name):
    if isinstance(value, bool):
        raise bad(name, value, 'is not an integer')
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise bad(name, value, 'is not an integer')


def integer(low=-2 ** 31, high=2 ** 31 - 1, null=False):
    """An integer, or a string of its digits."""
    def convert(value, name):
        number = _integer(value, name)
        if number is not None and not low <= number <= high:
            raise bad(name, value, f'is not between {low} and {high}')
        return number
    kinds = ['integer', 'string', 'null'] if null else ['integer', 'string']
    return Kind({'type': kinds}, convert, {'type': ['integer', 'null'] if null else 'integer'})


def text(size=255, null=False):
    """A string of at most ``size`` characters."""
    return Kind({'type': ['string', 'null'] if null else 'string', 'maxLength': size})


def choice(*values, null=False):
    """One of some strings."""
    return Kind({'enum': [*values, None] if null else list(values)})


def canonical_ip(value, name):
    """An address in its canonical form."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise bad(name, value, 'is not a valid IP address')


def canonical_cidr(value, name):
    """A CIDR whose host bits are zero."""
    try:
        if '/' not in value:
            raise ValueError
        return str(ipaddress.ip_network(value, strict=False))
    except (ValueError, TypeError):
        raise bad(name, value, 'is not a valid IP subnet')


def ip_or_cidr(value, name):
    """An address or a CIDR, as it was given."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise bad(name, value, 'is not a valid IP address or subnet')
    return value


def _optional(check):
    return lambda value, name: None if value is None else check(value, name)


def _each(check):
    def convert(values, name):
        found = [check(value, name) for value in values or ()]
        for index, value in enumerate(found):
            if value in found[:index]:
                raise bad(name, value, 'is there twice')
        return found
    return convert


def _mac(value, name):
    if value is None:
        return None
    if not re.fullmatch(r'(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}|[0-9a-fA-F]{12}', value):
        raise bad(name, value, 'is not a valid MAC address')
    digits = re.sub('[:-]', '', value.lower())
    if digits == '0' * 12:
        raise bad(name, value, 'is not a valid MAC address')
    return ':'.join(digits[index:index + 2] for index in range(0, 12, 2))


def _route(value, name):
    return {'destination': canonical_cidr(value['destination'], name), 'nexthop': canonical_ip(value['nexthop'], name)}


def _pool(value, name):
    return {'start': canonical_ip(value['start'], name), 'end': canonical_ip(value['end'], name)}


def _fixed_ips(values, name):
    found = []
    for value in values or ():
        one = {key: part for key, part in value.items() if part is not None and key in ('subnet_id', 'ip_address')}
        if 'ip_address' in one:
            one['ip_address'] = canonical_ip(one['ip_address'], name)
            if any(other.get('ip_address') == one['ip_address'] for other in found):
                raise bad(name, one['ip_address'], 'is there twice')
        found.append(one)
    return found


def _pairs(values, name):
    found = []
    for value in values or ():
        pair = {'ip_address': ip_or_cidr(value['ip_address'], name)}
        if value.get('mac_address'):
            pair['mac_address'] = _mac(value['mac_address'], name)
        found.append(pair)
    return found


NULL = {'type': 'null'}
STRING = text()
NAME = STRING
DESCRIPTION = STRING
BOOLEAN = Kind({'type': ['boolean', 'string', 'integer']}, _boolean, {'type': 'boolean'})
ID = Kind({'type': 'string', 'format': 'uuid'}, shown={'type': 'string'})
ID_OR_NONE = Kind({'type': ['string', 'null'], 'pattern': '^[0-9a-fA-F-]{32,36}$'}, shown={'type': ['string', 'null']})
PROJECT = Kind({'type': 'string', 'maxLength': 255})
TIME = Kind({'type': ['string', 'null']})
IP = Kind({'type': 'string', 'maxLength': 64}, canonical_ip)
IP_OR_NONE = Kind({'type': ['string', 'null'], 'maxLength': 64}, _optional(canonical_ip))
CIDR = Kind({'type': 'string', 'maxLength': 64}, canonical_cidr)
CIDR_OR_NONE = Kind({'type': ['string', 'null'], 'maxLength': 64}, _optional(canonical_cidr))
MAC = Kind({'type': ['string', 'null'], 'maxLength': 17}, _mac)
STRINGS = Kind({'type': ['array', 'null'], 'items': {'type': 'string', 'maxLength': 255}}, lambda value, name: value or [])
IDS = Kind({'type': ['array', 'null'], 'items': {'type': 'string', 'maxLength': 64}}, lambda value, name: value or [])
TAGS = Kind({'type': ['array', 'null'], 'maxItems': 50, 'items': {
    'type': 'string', 'minLength': 1, 'maxLength': 255, 'pattern': '^[^,/]*$'}},
    lambda value, name: list(dict.fromkeys(value or ())))
IPS = Kind({'type': ['array', 'null'], 'items': {'type': 'string', 'maxLength': 64}}, _each(canonical_ip))
CIDRS = Kind({'type': 'array', 'items': {'type': 'string', 'maxLength': 64}}, _each(canonical_cidr))
POOLS = Kind({'type': ['array', 'null'], 'items': schema.obj({'start': schema.STRING, 'end': schema.STRING}, ['start', 'end'])},
             lambda value, name: None if value is None else [_pool(one, name) for one in value])
ROUTES = Kind({'type': ['array', 'null'], 'items': schema.obj(
    {'destination': schema.STRING, 'nexthop': schema.STRING}, ['destination', 'nexthop'])}, _each(_route))
FIXED_IPS = Kind(
    {'type': ['array', 'null'], 'items': schema.obj({'subnet_id': schema.TEXT, 'ip_address': schema.TEXT})}, _fixed_ips
)
PAIRS = Kind({'type': ['array', 'null'], 'items': schema.obj(
    {'ip_address': schema.STRING, 'mac_address': schema.TEXT}, ['ip_address'])}, _pairs)
OBJECT = Kind({'type': 'object'})
OBJECT_OR_NONE = Kind({'type': ['object', 'null']})
ANY = Kind({})
INTEGER = integer()


def standard(table, name_size=255, named=True, owned=True, tagged=True):
    """The attributes that every resource has."""
    columns = table.c
    found = [Field('id', ID, columns.id, post=False, put=False)]
    if owned:
        found += [Field('project_id', PROJECT, columns.project_id, put=False),
                  Field('tenant_id', PROJECT, columns.project_id, put=False)]
    if named:
        found.append(Field('name', text(name_size), columns.name, default=''))
    found.append(Field('description', DESCRIPTION, columns.description, default=''))
    if tagged:
        found.append(Field('tags', TAGS, columns.tags, put=False, filter=False, sort=False, default=list))
    return [*found, Field('revision_number', INTEGER, columns.revision_number, post=False, put=False),
            Field('created_at', TIME, columns.created_at, post=False, put=False, filter=False),
            Field('updated_at', TIME, columns.updated_at, post=False, put=False, filter=False)]
