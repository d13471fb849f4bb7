"""Lists: filters, sorting by several keys, and pages that start behind a marker (keyset pagination).

A page costs the same wherever it starts: the marker's row is compared with, nothing is skipped over.
"""
import datetime
import functools
import urllib.parse

import sqlalchemy as sa

from .. import errors
from . import schema

_SMALLEST = {str: '', int: -2 ** 62, float: -1e300, bool: False, datetime.datetime: datetime.datetime(1, 1, 1)}
RESERVED = ('limit', 'marker', 'sort_key', 'sort_dir', 'sort', 'page_reverse', 'fields')


class Listing:
    """How one resource is listed.

    :param key: the unique column that markers name (the id as users see it).
    :param sorts: name to column: what can be sorted by.
    :param default: ``[(name, 'asc' or 'desc'), ...]`` where a request names no order.
    :param filters: name to a column (equality; a repeated parameter means any of them; booleans and integers are
        converted) or to ``function(values: list of text) -> SQL condition``.
    :param max_limit: the longest page; also the page where a request names none, if ``paged``.
    :param paged: False: without ``limit`` everything is returned (Neutron, Keystone).
    :param default_limit: length of a page where a request names none; ``max_limit`` if None.
    """

    def __init__(self, key, sorts, default, filters=None, max_limit=1000, paged=True, default_limit=None):
        self.key = key
        self.sorts = sorts
        self.default = default
        self.filters = filters or {}
        self.max_limit = max_limit
        self.paged = paged
        self.default_limit = default_limit or max_limit

    def parameters(self, **more):
        """The query properties of an endpoint that lists by this."""
        found = {name: {'type': 'array', 'items': schema.STRING} for name in (*self.filters, 'sort_key', 'sort_dir', 'sort')}
        found.update(limit=schema.INTEGER, marker=schema.STRING, page_reverse=schema.BOOLEAN)
        found.update(more)
        return found

    def conditions(self, query):
        """The SQL conditions of the filters that a request's ``query`` (typed dictionary) names."""
        found = []
        for name, target in self.filters.items():
            if name not in query:
                continue
            values = query[name] if isinstance(query[name], list) else [query[name]]
            if callable(target) and not isinstance(target, sa.sql.ColumnElement):
                condition = target(values)
                if condition is not None:
                    found.append(condition)
                continue
            values = [_typed(name, target, value) for value in values]
            found.append(target == values[0] if len(values) == 1 else target.in_(values))
        return found

    def order(self, query):
        """``[(column, descending), ...]`` of a request, the key last; ``BadRequest`` for an unknown name."""
        names = []
        for pair in ','.join(query.get('sort') or ()).split(','):
            if pair.strip():
                name, _, direction = pair.strip().partition(':')
                names.append((name, direction or 'desc'))
        keys, directions = _split(query.get('sort_key')), _split(query.get('sort_dir'))
        if len(directions) > max(len(keys), 1):
            raise errors.BadRequest('There are more sort directions (sort_dir) than sort keys (sort_key).')
        for index, name in enumerate(keys):
            fallback = directions[0] if len(directions) == 1 else self.default[0][1]
            names.append((name, directions[index] if index < len(directions) else fallback))
        if not names:
            names = [(name, directions[0]) if directions else (name, direction) for name, direction in self.default]
        order = []
        for name, direction in names:
            if name not in self.sorts:
                raise errors.BadRequest(f"Invalid sort key '{name}': it must be one of {', '.join(sorted(self.sorts))}.")
            if direction not in ('asc', 'desc'):
                raise errors.BadRequest(f"Invalid sort direction '{direction}': it must be asc or desc.")
            order.append((self.sorts[name], direction == 'desc'))
        if all(column is not self.key for column, _ in order):
            order.append((self.key, order[-1][1]))
        return order

    def limit(self, query):
        """The length of the page that a request asks for, or None for everything."""
        asked = query.get('limit')
        if asked is None:
            return self.default_limit if self.paged else None
        if asked < 0:
            raise errors.BadRequest(f"Invalid value '{asked}' for limit: it must be at least 0.")
        return min(asked, self.max_limit)

    def page(self, connection, select, query, visible=None):
        """One page of ``select`` (which must select from the key's table).

        :param visible: conditions that the marker's row must meet too, so that a marker tells nothing about rows
            that the caller can't see.
        :returns: ``(rows, more)``: result rows, and whether the list goes on behind them.
        :raises BadRequest: a marker that isn't there, an unknown sort key, a bad limit.
        """
        order, limit = self.order(query), self.limit(query)
        reverse = bool(query.get('page_reverse'))
        if reverse:
            order = [(column, not descending) for column, descending in order]
        conditions = self.conditions(query)
        marker = query.get('marker')
        if marker:
            conditions.append(self._behind(connection, marker, order, visible))
        # All at once: each call copies the statement.
        if conditions:
            select = select.where(*conditions)
        select = select.order_by(*[_sorted(column, descending) for column, descending in order])
        if limit is not None:
            select = select.limit(limit + 1)
        rows = connection.execute(select).all()
        # Nothing can follow a page of no rows: it has no last row to begin behind.
        more = bool(limit) and len(rows) > limit
        rows = rows if limit is None else rows[:limit]
        if reverse:
            rows.reverse()
        return rows, more

    def _behind(self, connection, marker, order, visible):
        columns = [_comparable(column) for column, _ in order]
        select = sa.select(*columns).where(self.key == marker)
        if visible is not None:
            select = select.where(visible)
        found = connection.execute(select).first()
        if found is None:
            raise errors.BadRequest(f"Marker '{marker}' could not be found.", kind='MarkerNotFound')
        alternatives, equal = [], []
        for expression, (_, descending), value in zip(columns, order, found, strict=True):
            beyond = expression < value if descending else expression > value
            alternatives.append(sa.and_(*equal, beyond))
            equal.append(expression == value)
        return sa.or_(*alternatives)


def next_url(req, marker, **changes):
    """The URL of the page behind ``marker``: this request's, with its other parameters kept."""
    return f'{req.url}?{next_query(req, marker, **changes)}'


def next_query(req, marker, **changes):
    """The query string of the page behind ``marker``."""
    dropped = {'marker', *changes}
    pairs = [(name, value) for name, value in req.http.args.items(multi=True) if name not in dropped]
    pairs += [('marker', marker), *((name, value) for name, value in changes.items() if value is not None)]
    return urllib.parse.urlencode(pairs)


def _split(values):
    if not values:
        return []
    return [part.strip() for value in (values if isinstance(values, list) else [values]) for part in value.split(',')]


def _typed(name, column, value):
    kind = column.type.python_type if not isinstance(column.type, sa.types.TypeDecorator) else str
    if kind is bool:
        return schema.boolean(value, name)
    if kind is int:
        # What no column can have, a database may fail on.
        return schema.integer(value, name, -2 ** 63, 2 ** 63 - 1)
    return value


@functools.cache
def _sorted(column, descending):
    expression = _comparable(column)
    return expression.desc() if descending else expression.asc()


def _comparable(column):
    # NULL sorts first on one database and last on another, and equals nothing; a smallest value does neither.
    if not getattr(column, 'nullable', False):
        return column
    return sa.func.coalesce(column, _SMALLEST.get(column.type.python_type, ''))
