"""One resource of the API: from its fields to its five endpoints.

A list is one statement whatever its length: the columns of the attributes that were asked for and that the caller may see.
Who may see a row is a condition in SQL; policy rules are asked once a request, for the route and for single attributes.
"""
import re

import sqlalchemy as sa

from kodiak.common import api, errors, policy
from kodiak.common.api import Listing, listing, schema
from kodiak.network import faults, find, unit

from . import fields

TAG_FILTERS = ('tags', 'tags-any', 'not-tags', 'not-tags-any')
FOR_ALL = {'type': 'array', 'items': {'type': 'string'}}
CHUNK = 10000
READER = policy.READER + ' or role:service'


class Resource:
    """A resource with its routes.

    :param name: ``network``; policy rules are called ``create_network`` and so on.
    :param plural: ``networks``; also its path, unless ``path`` says otherwise.
    :param table: where it lives. :param attributes: its :class:`~.fields.Field` objects.
    :param visible: ``function(project id) -> condition`` of rows that a project may see; None: all may see all.
    :param create: ``function(unit, values) -> id``, :param update: ``function(unit, row, values)``,
        :param delete: ``function(unit, row)``: the domain; None where the API has no such endpoint.
    :param policies: check strings of ``create``, ``get``, ``update``, ``delete`` where they differ from the usual.
    :param finish: ``function(conn, items, names)`` that adds to the views what is not in the table.
    :param check: ``function(req, body, row or None)``: more rules about what a request says.
    :param joined: what is selected from, where that is more than the table.
    :param more: extra columns of the row that updates, deletes and their rules get.
    :param filters: more filters, name to ``function(values)``.
    """

    USUAL = {'create': policy.PROJECT_MEMBER, 'get': READER, 'update': policy.PROJECT_MEMBER,
             'delete': policy.PROJECT_MEMBER}

    def __init__(self, name, plural, table, attributes, visible, create=None, update=None, delete=None, policies=None, finish=None,
                 check=None, joined=None, more=(), filters=None, path=None, missing=None, before=None, order='id'):
        self.name, self.plural, self.table, self.visible = name, plural, table, visible
        self.fields = {field.name: field for field in attributes}
        self.domain = {'create': create, 'update': update, 'delete': delete}
        self.policies = {**self.USUAL, **(policies or {})}
        self.finish, self.check, self.joined, self.more, self.before = finish, check, joined, more, before
        self.missing = missing or (plural, None)
        self.path = path or '/' + plural.replace('_', '-')
        self.taggable = 'tags' in self.fields
        self._selects = {}
        self.listing = self._listing(filters or {}, order)
        self.routes = api.Routes(plural)
        self._declare()

    def _listing(self, more, order):
        filters, sorts = {}, {}
        for field in self.fields.values():
            source = field.column
            if field.hidden:
                continue
            if callable(field.filter):
                filters[field.name] = field.filter
            elif field.filter and source is not None and not isinstance(source.type, fields.db.JSON):
                filters[field.name] = equality(field.name, source)
            if field.sort and field.column is not None and not isinstance(field.column.type, fields.db.JSON):
                sorts[field.name] = field.column
        if self.taggable:
            filters.update({name: _tag_filter(self.table.c.tags, name) for name in TAG_FILTERS})
        if 'updated_at' in self.fields:
            filters['changed_since'] = lambda values: self.table.c.updated_at >= fields.parse_time(values[0], 'changed_since')
        return Listing(self.table.c.id, sorts, [(order, 'asc')], {**filters, **more}, max_limit=10 ** 6, paged=False)

    def _declare(self):
        routes, name, one = self.routes, self.name, self.path + '/{id}'
        what = name.replace('_', ' ')
        article = 'an' if what[0] in 'aeiou' else 'a'
        item = schema.obj({field.name: field.kind.shown or field.kind.schema for field in self.fields.values() if not field.hidden})
        links = {f'{self.plural}_links': schema.array(schema.obj({'rel': schema.STRING, 'href': schema.STRING}))}
        routes.get(self.path, rule=f'get_{name}', default=self.policies['get'], strict_query=True, summary=f'List {what}s',
                   query=self.listing.parameters(fields=FOR_ALL),
                   response=schema.obj({self.plural: schema.array(item), **links}, [self.plural]))(self.list)
        routes.get(one, rule=f'get_{name}', default=self.policies['get'], load=self.load_view, summary=f'Show {article} {what}',
                   query={'fields': FOR_ALL}, response=schema.wrap(name, item))(self.show)
        if self.domain['create']:
            self.create_schema = _body(self.fields.values(), 'post')
            self.check_create = schema.Validator(self.create_schema)
            routes.post(self.path, rule=f'create_{name}', default=self.policies['create'], status=201,
                        summary=f'Create {article} {what}, or many at once',
                        body=schema.obj({name: {'type': 'object'}, self.plural: schema.array({'type': 'object'}, minItems=1)},
                                        minProperties=1, maxProperties=1),
                        response=schema.obj({name: item, self.plural: schema.array(item)}))(self.create)
        if self.domain['update']:
            self.check_update = schema.Validator(_body(self.fields.values(), 'put'))
            routes.put(one, rule=f'update_{name}', default=self.policies['update'], load=self.load,
                       summary=f'Change {article} {what}', body=schema.wrap(name, {'type': 'object'}),
                       response=schema.wrap(name, item))(self.update)
        if self.domain['delete']:
            routes.delete(one, rule=f'delete_{name}', default=self.policies['delete'], load=self.load,
                          summary=f'Delete {article} {what}')(self.delete)

    def rules(self):
        """The policy rules of single attributes: ``[(name, check, description), ...]``."""
        found = []
        for field in self.fields.values():
            for action, check in (('create', field.create_rule), ('update', field.update_rule), ('get', field.get_rule)):
                if check is not None:
                    found.append(
                        (f'{action}_{self.name}:{field.name}', check, f'{action} the attribute {field.name} of a {self.name}')
                    )
        return found

    def not_found(self, id):
        """The 404 of this resource."""
        what, kind = self.missing
        return faults.not_found(what, id, kind)

    def condition(self, ctx):
        """What the caller may see, as a condition; None for everything."""
        if self.visible is None or find.sees_all(ctx):
            return None
        return self.visible(ctx.project_id)

    def names(self, req, asked=None):
        """The attributes that the caller may see, of those asked for, in their order."""
        found = []
        for field in self.fields.values():
            if field.hidden or (asked and field.name not in asked):
                continue
            if field.get_rule is None or req.allows(f'get_{self.name}:{field.name}'):
                found.append(field.name)
        return tuple(found)

    def select(self, names, ctx):
        """``(SELECT, names of its columns, [(name, viewer), ...])`` of some attributes."""
        found = self._selects.get(names)
        if found is None:
            columns, chosen, viewers, personal = [], [], [], []
            for name in names:
                field = self.fields[name]
                if callable(field.expression):
                    personal.append(field)
                    continue
                column = field.selected()
                if column is None:
                    continue
                columns.append(column)
                chosen.append(name)
                viewer = field.viewer()
                if viewer is not None:
                    viewers.append((name, viewer))
            if self.finish is not None and 'id' not in chosen:
                columns.append(self.table.c.id.label('id'))
                chosen.append('id')
            select = sa.select(*columns).select_from(self.joined if self.joined is not None else self.table)
            chosen += [field.name for field in personal]
            found = self._selects[names] = (select, chosen, viewers, personal)
        select, chosen, viewers, personal = found
        if personal:
            select = select.add_columns(*(field.expression(ctx.project_id or '').label(field.name) for field in personal))
        return select, chosen, viewers

    def read(self, conn, req, select, chosen, viewers, names):
        """The views of the rows of a select."""
        return self.views(conn, req, conn.execute(select).all(), chosen, viewers, names)

    def views(self, conn, req, rows, chosen, viewers, names):
        """The views of rows."""
        items = []
        for row in rows:
            item = dict(zip(chosen, row, strict=False))
            for name, viewer in viewers:
                item[name] = viewer(item[name])
            items.append(item)
        if self.finish is not None:
            self.finish(conn, items, names, req)
        return items

    def list(self, req):
        """GET of all."""
        asked = _asked(req)
        names = self.names(req, asked)
        select, chosen, viewers = self.select(names, req.ctx)
        condition = self.condition(req.ctx)
        if condition is not None:
            select = select.where(condition)
        if self.before is not None:
            self.before(req)
        if req.query.get('limit') == 0:
            req.query.pop('limit')
        with req.db.read() as conn:
            rows, more = self.listing.page(conn, _with_id(select, self.table), req.query, condition)
            items = self.views(conn, req, rows, chosen, viewers, names)
        answer = {self.plural: items}
        if req.query.get('limit') and rows:
            answer.update(self._links(req, rows, more))
        if self.finish is not None and asked and 'id' not in asked:
            for item in items:
                item.pop('id', None)
        return answer

    def _links(self, req, rows, more):
        reverse, marked = req.query.get('page_reverse'), 'marker' in req.query
        links = []
        if more or (reverse and marked):
            links.append({'rel': 'next', 'href': listing.next_url(req, rows[-1]._kodiak_id, page_reverse=None)})
        if marked or (reverse and more):
            links.append({'rel': 'previous', 'href': listing.next_url(req, rows[0]._kodiak_id, page_reverse='True')})
        return {f'{self.plural}_links': links} if links else {}

    def fetch(self, conn, req, ids):
        """The views of some rows in the order of their ids, whoever owns them."""
        names = self.names(req)
        select, chosen, viewers = self.select(names, req.ctx)
        items = {}
        for start in range(0, len(ids), CHUNK):
            part = ids[start:start + CHUNK]
            query = select.where(self.table.c.id == part[0] if len(part) == 1 else self.table.c.id.in_(part))
            for item in self.read(conn, req, query, chosen, viewers, names):
                items[item['id']] = item
        return [items[id] for id in ids]

    def load_view(self, req, id, **parents):
        """The view of one row that the caller can see."""
        names = self.names(req)
        select, chosen, viewers = self.select(names, req.ctx)
        select = select.where(self.table.c.id == id)
        condition = self.condition(req.ctx)
        if condition is not None:
            select = select.where(condition)
        with req.db.read() as conn:
            items = self.read(conn, req, select, chosen, viewers, names)
        if not items:
            raise self.not_found(id)
        return items[0]

    def show(self, req, id):
        """GET of one."""
        asked, item = _asked(req), req.target
        if asked:
            item = {name: value for name, value in item.items() if name in asked}
        return {self.name: item}

    def load(self, req, id, **parents):
        """The row that an update or a delete is about."""
        query = sa.select(self.table, *self.more).where(self.table.c.id == id)
        condition = self.condition(req.ctx)
        if condition is not None:
            query = query.where(condition)
        with req.db.read() as conn:
            row = fields.db.one(conn, query)
        if row is None:
            raise self.not_found(id)
        return row

    def create(self, req):
        """POST of one or many."""
        many = self.plural in req.body
        bodies = req.body[self.plural] if many else [req.body[self.name]]
        values = [self._created(req, body) for body in bodies]
        items = unit.run(req.app, req.ctx, self._create, req, values)
        return {self.plural: items} if many else {self.name: items[0]}

    def _create(self, one, req, values):
        ids = [self.domain['create'](one, dict(value)) for value in values]
        items = self.fetch(one.conn, req, ids)
        for item in items:
            one.announce(f'{self.name}.create.end', {self.name: item}, item['id'])
        return items

    def _created(self, req, body):
        if isinstance(body, dict) and 'tenant_id' in body:
            body = {**body, 'project_id': body.get('project_id', body['tenant_id'])}
            body.pop('tenant_id')
        body = self.check_create(body)
        values = {}
        if 'project_id' in self.fields:
            values['project_id'] = body.get('project_id', req.ctx.project_id) or ''
            if values['project_id'] != (req.ctx.project_id or '') and not find.sees_all(req.ctx):
                raise errors.BadRequest("Specifying 'project_id' or 'tenant_id' other than the authenticated project in request "
                                        'requires admin privileges', kind='HTTPBadRequest')
        target = {**body, 'project_id': values.get('project_id'), 'tenant_id': values.get('project_id')}
        for field in self.fields.values():
            if field.name in body and field.name not in ('project_id', 'tenant_id'):
                value = body[field.name]
                if field.kind.convert is not None:
                    value = body[field.name] = field.kind.convert(value, field.name)
                if field.create_rule is not None and value != field.default:
                    req.authorize(target, f'create_{self.name}:{field.name}')
                values[field.target] = value
            elif field.default is not UNSET and field.default is not REQUIRED and field.post:
                values.setdefault(field.target, field.default() if callable(field.default) else field.default)
        if self.check is not None:
            self.check(req, values, None)
        return values

    def update(self, req, id):
        """PUT of one."""
        body = self.check_update(req.body[self.name])
        row, values = req.target, {}
        check_revision(req, row)
        for name, value in body.items():
            field = self.fields[name]
            if field.kind.convert is not None:
                value = field.kind.convert(value, name)
            if field.update_rule is not None:
                req.authorize(row, f'update_{self.name}:{name}')
            values[field.target] = value
        if self.check is not None:
            self.check(req, values, row)
        return {self.name: unit.run(req.app, req.ctx, self._update, req, row, values)}

    def _update(self, one, req, row, values):
        self.domain['update'](one, row, dict(values))
        item = self.fetch(one.conn, req, [row['id']])[0]
        one.announce(f'{self.name}.update.end', {self.name: item}, row['id'])
        return item

    def delete(self, req, id):
        """DELETE of one."""
        check_revision(req, req.target)
        unit.run(req.app, req.ctx, self._delete, req.target)

    def _delete(self, one, row):
        self.domain['delete'](one, row)
        one.announce(f'{self.name}.delete.end', {f'{self.name}_id': row['id']}, row['id'])


UNSET, REQUIRED = fields.UNSET, fields.REQUIRED


def _body(attributes, method):
    properties = {field.name: field.kind.schema for field in attributes if getattr(field, method)}
    required = [field.name for field in attributes if method == 'post' and field.default is REQUIRED]
    return schema.obj(properties, required)


def _asked(req):
    return set(req.query['fields']) if req.query.get('fields') else None


def _with_id(select, table):
    # The id goes along under a name of its own: pages are marked by it whatever was asked for.
    return select.add_columns(table.c.id.label('_kodiak_id'))


def equality(name, source):
    """A filter by equality: values are converted to the column's type, several mean any of them."""
    kind = source.type.python_type

    def condition(values):
        if kind is bool:
            values = [schema.boolean(value, name) for value in values]
        elif kind is int:
            values = [schema.integer(value, name, -2 ** 63, 2 ** 63 - 1) for value in values]
        if kind is bool and len(values) == 1:
            return source.is_(values[0])
        return source == values[0] if len(values) == 1 else source.in_(values)
    return condition


def _tag_filter(column, name):
    def has(tag):
        # Tags are stored as JSON: a tag stands in it with its quotes, and nothing else does. REPLACE minds the case on
        # every database, which LIKE does not.
        text = sa.func.coalesce(sa.type_coerce(column, sa.Text), '')
        return sa.func.length(sa.func.replace(text, fields.orjson.dumps(tag).decode(), '')) != sa.func.length(text)

    def condition(values):
        tags = [tag for value in values for tag in value.split(',')]
        parts = [has(tag) for tag in tags]
        joined = sa.or_(*parts) if name.endswith('any') else sa.and_(*parts)
        return sa.not_(joined) if name.startswith('not') else joined
    return condition


def check_revision(req, row):
    """``If-Match: revision_number=N``: 412 where the row has another one."""
    header = req.http.headers.get('If-Match')
    if not header:
        return
    match = re.fullmatch(r'\s*revision_number=(\d+)\s*', header)
    if not match:
        raise errors.BadRequest(f'Invalid value for If-Match header: {header[:80]}', kind='HTTPBadRequest')
    if int(match[1]) != row.get('revision_number'):
        raise errors.PreconditionFailed(f"Constrained to {match[1]}, but current revision is {row.get('revision_number')}",
                                        kind='RevisionNumberConstraintFailed')
