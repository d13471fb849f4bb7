"""What volume types and group types have in common: making, listing, changing, deleting them, and their specs."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, errors
from kodiak.common.api import Listing, schema
from kodiak.storage_block import notices, store

from . import common

NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255}


class Types:
    """One of the two.

    :param name: ``volume_type``; :param path: ``/types``; :param table: its rows; :param specs: name of the column of specs,
        also in bodies and paths; :param rule: beginning of its policy rules; :param made: status of a creation.
    """

    def __init__(self, routes, name, path, table, specs, rule, made=200, since=None):
        self.routes, self.name, self.path, self.table, self.specs, self.rule = routes, name, path, table, specs, rule
        self.made, self.since = made, since
        self.listing = Listing(table.c.id, {name: table.c[name] for name in ('id', 'name', 'created_at', 'description')},
                               [('created_at', 'desc')], {'name': table.c.name, 'description': table.c.description})

    def visible(self, ctx):
        """The SQL condition for what a caller may use, or None."""
        return None if ctx.is_admin else self.table.c.is_public

    def shown(self, req, row):
        """A type as this caller sees it; ``row`` is a dictionary."""
        found = {'id': row['id'], 'name': row['name'], 'description': row['description'], 'is_public': row['is_public']}
        if req.ctx.is_admin:
            found[self.specs] = row[self.specs]
        return found

    def load(self, req, type_id, **more):
        """An endpoint's ``load``."""
        query = sa.select(self.table).where(self.table.c.id == type_id)
        condition = self.visible(req.ctx)
        with req.db.read() as connection:
            row = db.one(connection, query if condition is None else query.where(condition))
        if row is None:
            raise store.not_found(self.table, type_id)
        return row

    def in_use(self, connection, type_id):
        """True if something is of this type."""
        raise NotImplementedError

    def default_of(self, req, connection):
        """The row of the default type."""
        raise NotImplementedError

    def removed(self, req, connection, type_id):
        """Remove what belongs to a type that goes; an error where it has to stay."""

    def read_body(self, sent):
        """The columns that a body names."""
        found = {name: sent[name] for name in ('name', 'description') if name in sent}
        public = sent.get(self.public_key, sent.get('is_public'))
        if public is not None:
            found['is_public'] = common.truth(public, self.public_key)
        return found

    public_key = 'is_public'
    #: Specs that everybody may see.
    public_specs = ()

    def declare(self, what):
        """Declare the endpoints."""
        self._declare_types(what)
        self._declare_specs(what)

    def _tell(self, connection, what, row):
        said = {name: row[name] for name in ('id', 'name', 'description', 'is_public', self.specs)}
        notices.catalog(connection, f'{self.name}.{what}', {self.name + 's': said}, row['id'])
        return row

    def _write(self, req, function):
        try:
            return req.db.transact(function)
        except exc.IntegrityError as error:
            if not db.is_duplicate(error):
                raise
            raise errors.Conflict(f"{what_of(self.name)} {req.body[self.name]['name']} already exists.") from None

    def _declare_types(self, what):
        routes, name, path, table = self.routes, self.name, self.path, self.table
        one = {'load': self.load, 'since': self.since}
        answer = schema.wrap(name, common.OBJECT)
        optional = {'description': {'type': ['string', 'null'], 'maxLength': 255}, 'is_public': common.BOOLEAN,
                    self.public_key: common.BOOLEAN}
        body = schema.wrap(name, schema.obj({'name': NAME, **optional, self.specs: schema.nullable(common.SPECS)}, ['name']))
        change = schema.wrap(name, schema.obj({'name': schema.nullable({**NAME, 'minLength': 0}), **optional}))
        filters = {'is_public': schema.STRING, self.specs: schema.STRING, 'offset': schema.INTEGER}

        @routes.get(path, rule=f'{self.rule}:get_all', default=common.READER, since=self.since,
                    query=self.listing.parameters(**filters), response=schema.obj({
                        name + 's': schema.array(common.OBJECT), name + '_links': common.LINKS, name + 's_links': common.LINKS}),
                    summary=f'List {what}s')
        def index(req):
            select = sa.select(table)
            condition = self.visible(req.ctx)
            if condition is not None:
                select = select.where(condition)
            public = req.query.get('is_public')
            if req.ctx.is_admin and (public or '').lower() != 'none':
                select = select.where(table.c.is_public == (True if public is None else schema.boolean(public, 'is_public')))
            if self.specs in req.query and (req.at_least(3, 52) or name != 'volume_type'):
                wanted = req.query[self.specs]
                # Who does not see a spec learns nothing of it by asking for it either.
                hidden = not req.ctx.is_admin and {*common.pairs(wanted)} - {*self.public_specs}
                select = select.where(sa.false() if hidden else common.json_filter(table.c[self.specs])([wanted]))
            with req.db.read() as connection:
                return common.page(req, self.listing, connection, select, name + 's',
                                   lambda row: self.shown(req, row._mapping), count=table)

        @routes.get(path + '/default', rule=f'{self.rule}:get_default', default=common.READER, since=self.since, response=answer,
                    summary=f'Show the default {what}')
        def default(req):
            with req.db.read() as connection:
                return {name: self.shown(req, self.default_of(req, connection))}

        @routes.get(path + '/{type_id}', rule=f'{self.rule}:get', default=common.READER, response=answer,
                    summary=f'Show a {what}', **one)
        def show(req, type_id):
            return {name: self.shown(req, req.target)}

        @routes.post(path, rule=f'{self.rule}:create', default=common.ADMIN, since=self.since, body=body, status=self.made,
                     response=answer, summary=f'Make a {what}')
        def create(req):
            sent = req.body[name]
            row = {'description': None, 'is_public': True, **self.read_body(sent)}
            row['name'] = _name(row['name'])
            row[self.specs] = texts(sent.get(self.specs) or {})
            if 'qos_specs_id' in table.c:
                row['qos_specs_id'] = None

            def write(connection):
                return self._tell(connection, 'create', store.insert(connection, table, row))
            return {name: self.shown(req, self._write(req, write))}

        @routes.put(path + '/{type_id}', rule=f'{self.rule}:update', default=common.ADMIN, body=change, response=answer,
                    summary=f'Change a {what}', **one)
        def update(req, type_id):
            changes = self.read_body(req.body[name])
            if 'name' in changes and changes['name'] is None:
                del changes['name']
            if not changes:
                raise errors.BadRequest(f'Specify at least one of name, description and is_public of the {what}.')
            if 'name' in changes:
                changes['name'] = _name(changes['name'])

            def write(connection):
                return self._tell(connection, 'update', store.save(connection, table, store.need(connection, table, type_id),
                                                                   **changes))
            return {name: self.shown(req, self._write(req, write))}

        @routes.delete(path + '/{type_id}', rule=f'{self.rule}:delete', default=common.ADMIN, status=202,
                       summary=f'Delete a {what}', **one)
        def delete(req, type_id):
            def write(connection):
                if self.in_use(connection, type_id):
                    raise errors.BadRequest(f'Target {what} {req.target["name"]} is still in use.', kind='VolumeTypeInUse')
                self.removed(req, connection, type_id)
                store.delete(connection, table, type_id)
                self._tell(connection, 'delete', req.target)
            req.db.transact(write)

    def _declare_specs(self, what):
        routes, table, specs = self.routes, self.table, self.specs
        path = f'{self.path}/{{type_id}}/{specs}'
        body, answer = schema.wrap(specs, {**common.SPECS, 'minProperties': 1}), schema.wrap(specs, common.OBJECT)
        reading = {'rule': f'{self.rule}:{specs}:index', 'default': common.READER, 'load': self.load, 'since': self.since}
        writing = {'rule': f'{self.rule}:{specs}:write', 'default': common.ADMIN, 'load': self.load, 'since': self.since}

        def change(req, type_id, function, phase, told):
            def write(connection):
                row = store.need(connection, table, type_id)
                store.save(connection, table, row, **{specs: function(row[specs])})
                moments = {name: str(row[name]) for name in ('created_at', 'updated_at')}
                notices.catalog(connection, f'{self.name}_{specs}.{phase}', {'type_id': type_id, **moments, **told}, type_id)
            req.db.transact(write)

        def need(found, key):
            if key not in found:
                raise errors.NotFound(f'The {what} has no spec with the key {key}.')
            return found[key]

        def visible(req):
            return self.shown(req, req.target).get(specs, {})

        @routes.get(path, response=answer, summary=f'Show the specs of a {what}', **reading)
        def show_all(req, type_id):
            return {specs: visible(req)}

        @routes.post(path, body=body, response=answer, status=self.made, summary=f'Add to the specs of a {what}', **writing)
        def add(req, type_id):
            change(req, type_id, lambda old: {**old, **texts(req.body[specs])}, 'create', {'specs': texts(req.body[specs])})
            return {specs: texts(req.body[specs])}

        @routes.get(path + '/{key}', response=common.OBJECT, summary=f'Show one of the specs of a {what}', **reading)
        def show_one(req, type_id, key):
            return {key: need(visible(req), key)}

        @routes.put(path + '/{key}', body={**common.SPECS, 'minProperties': 1, 'maxProperties': 1}, response=common.OBJECT,
                    summary=f'Set one of the specs of a {what}', **writing)
        def put_one(req, type_id, key):
            if key not in req.body:
                raise errors.BadRequest('Request body and URI mismatch: the key in the body must be the one in the path.')
            change(req, type_id, lambda old: {**old, **texts(req.body)}, 'update', {'specs': texts(req.body)})
            return texts(req.body)

        @routes.delete(path + '/{key}', status=202, summary=f'Remove one of the specs of a {what}', **writing)
        def delete_one(req, type_id, key):
            def without(old):
                need(old, key)
                return {one: value for one, value in old.items() if one != key}
            change(req, type_id, without, 'delete', {'id': key})


def _name(text):
    text = text.strip()
    if not text:
        raise errors.BadRequest('The name of a type must have a character that is no blank.')
    return text


def texts(specs):
    """Specs with every value as text."""
    return {key: value if isinstance(value, str) else str(value) for key, value in specs.items()}


def what_of(name):
    """``Volume Type`` of ``volume_type``."""
    return name.replace('_', ' ').title()
