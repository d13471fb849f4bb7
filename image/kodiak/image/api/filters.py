"""How images are listed: filters, sorting, pages."""
import csv
import datetime

import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema as schemas

from ..models import image_properties, image_tags, images

#: Query parameters that are no filters on properties.
RESERVED = {'limit', 'marker', 'sort', 'sort_key', 'sort_dir', 'page_reverse', 'fields', 'visibility', 'member_status', 'os_hidden'}


def _values(name, text):
    """The values of ``in:a,b,"c,d"``, or the one value that a filter is; ``BadRequest`` for odd quotes."""
    if not text.startswith('in:'):
        return [text]
    quoted = text[3:]
    if quoted.count('"') % 2:
        raise errors.BadRequest(f'Invalid filter value {quoted}. The quote is not closed.')
    try:
        found = next(csv.reader([quoted], skipinitialspace=True, strict=True), [])
    except csv.Error:
        raise errors.BadRequest(f'Invalid filter value {quoted}. There is no comma before opening or after closing quote '
                                f'in the filter {name}.') from None
    return [value for value in found if value] or [quoted]


def _text(name):
    column = images.c[name]

    def condition(values):
        text = values[-1]
        if text.startswith(('eq:', 'neq:')) and name == 'status':
            text = text.partition(':')[2]
        wanted = _values(name, text)
        return column == wanted[0] if len(wanted) == 1 else column.in_(wanted)
    return condition


def _number(name, column, operator):
    def condition(values):
        number = schemas.integer(values[-1], name)
        if number < 0:
            raise errors.BadRequest(f"Invalid value '{number}' for {name}: it must not be negative.")
        if number >= 2 ** 63:
            raise errors.BadRequest(f"Invalid value '{number}' for {name}: it is too large.")
        return operator(column, number)
    return condition


def _boolean(name):
    return lambda values: images.c[name] == boolean(name, values[-1])


def boolean(name, text):
    """A boolean of the query; only the words true and false, in any case."""
    if text.lower() not in ('true', 'false'):
        raise errors.BadRequest(f"Invalid value '{text}' for '{name}' filter. Valid values are case insensitive 'true' or 'false'.")
    return text.lower() == 'true'


def _tags(values):
    return sa.and_(*(sa.exists().where(image_tags.c.image_id == images.c.id, image_tags.c.value == value) for value in values))


def _time(name):
    column, second = images.c[name], datetime.timedelta(seconds=1)
    # Times are shown in whole seconds, so that is how they are compared.
    operators = {'gt': lambda t: column >= t + second, 'gte': lambda t: column >= t, 'lt': lambda t: column < t,
                 'lte': lambda t: column < t + second, 'eq': lambda t: sa.and_(column >= t, column < t + second),
                 'neq': lambda t: sa.or_(column < t, column >= t + second)}

    def condition(values):
        found = []
        for text in values:
            operator, colon, rest = text.partition(':')
            if operator not in operators:
                operator, rest = 'eq', text
            elif not colon:
                raise errors.BadRequest(f'Unable to filter on an unknown operator in {name}.')
            try:
                moment = db.parse_time(rest).replace(microsecond=0)
                found.append(operators[operator](moment))
            except (ValueError, OverflowError):
                raise errors.BadRequest(f'Bad "{name}" query filter format. Use ISO 8601 DateTime notation.') from None
        return sa.and_(*found)
    return condition


FILTERS = {
    **{name: _text(name) for name in ('id', 'name', 'status', 'container_format', 'disk_format', 'owner', 'checksum',
                                      'os_hash_algo', 'os_hash_value')},
    **{name: _number(name, images.c[name], lambda column, number: column == number)
       for name in ('size', 'virtual_size', 'min_ram', 'min_disk')},
    'size_min': _number('size_min', images.c.size, lambda column, number: column >= number),
    'size_max': _number('size_max', images.c.size, lambda column, number: column <= number),
    'protected': _boolean('protected'), 'tag': _tags, 'created_at': _time('created_at'), 'updated_at': _time('updated_at'),
}
SORTS = {name: images.c[name] for name in ('name', 'status', 'container_format', 'disk_format', 'size', 'id', 'created_at',
                                           'updated_at', 'owner', 'visibility', 'min_disk', 'min_ram', 'virtual_size')}
LIST = api.Listing(images.c.id, SORTS, [('created_at', 'desc')], FILTERS, max_limit=1000, default_limit=25)


def property_conditions(query, readable):
    """The conditions of filters on custom properties: every parameter that is nothing else.

    :param readable: ``readable(name)``: whether the caller may know of a property; no image has one that it may not.
    """
    found = []
    for name, values in query.items():
        if name in FILTERS or name in RESERVED:
            continue
        if not readable(name):
            return [sa.false()]
        value = values[-1] if isinstance(values, list) else values
        found.append(sa.exists().where(image_properties.c.image_id == images.c.id, image_properties.c.name == name,
                                       image_properties.c.value == value))
    return found


def check_sorting(query):
    """What the two ways to sort don't allow together."""
    keys, directions = query.get('sort_key') or [], query.get('sort_dir') or []
    if query.get('sort') and (keys or directions):
        raise errors.BadRequest('Old and new sorting syntax cannot be combined')
    if len(query.get('sort') or ()) > 1:
        raise errors.BadRequest('sort may be given once; its keys are separated by commas')
    if len(directions) > 1 and len(directions) != len(keys):
        raise errors.BadRequest('Number of sort dirs does not match the number of sort keys')
