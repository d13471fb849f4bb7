"""Endpoint filtering: which projects see which endpoints."""
import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import catalog as domain
from .. import changes
from .. import core as cores
from ..models import endpoint_groups, endpoints, project_endpoint_groups, project_endpoints, projects
from . import catalog, kit, rules
from . import projects as project_api

routes = api.Routes('endpoint filter', '/v3/OS-EP-FILTER')

KNOWN = ('name', 'description', 'filters')
FILTERS = schema.obj({'service_id': schema.STRING, 'region_id': schema.STRING, 'interface': catalog.INTERFACE,
                      'enabled': kit.FLAG})
FIELDS = {'name': kit.NAME, 'description': kit.TEXT, 'filters': FILTERS}
#: A new one has at least one filter; clients take them all away later.
NEW = {**FIELDS, 'filters': {**FILTERS, 'minProperties': 1}}
HOW = kit.listing_of(endpoint_groups.c.id, kit.text_filters(name=endpoint_groups.c.name))
PAIR = '/projects/{project_id}/endpoints/{endpoint_id}'
GROUP = '/endpoint_groups/{group_id}'
GROUP_PAIR = GROUP + '/projects/{project_id}'


def view(req, row):
    """An endpoint group as the API shows it."""
    return {'id': row.id, 'name': row.name, 'description': row.description, 'filters': row.filters,
            'links': {'self': f'{req.base_url}/v3/OS-EP-FILTER/endpoint_groups/{row.id}'}}


def load(req, **ids):
    """Check that what the path names is there; an endpoint group stands in ``req.row``."""
    tables = {'project_id': projects, 'endpoint_id': endpoints, 'group_id': endpoint_groups}
    with req.db.read() as connection:
        for name, key in ids.items():
            row = connection.execute(sa.select(tables[name]).where(tables[name].c.id == key)).first()
            if row is None:
                kind = {'group_id': 'endpoint group'}.get(name, name.removesuffix('_id'))
                raise errors.NotFound(f'Could not find {kind}: {key}.')
            if name == 'group_id':
                req.row = row
    return {}


def _associate(req, table, values):
    def store(connection):
        if connection.execute(sa.select(table).where(*(table.c[name] == value for name, value in values.items()))).first() is None:
            connection.execute(table.insert().values(values))
            changes.bump(connection, changes.CATALOG)
    cores.of(req).db.transact(store)


def _dissociate(req, table, values, what):
    def store(connection):
        if not connection.execute(sa.delete(table).where(*(table.c[name] == value for name, value in values.items()))).rowcount:
            raise errors.NotFound(f'{what} is not associated with the project.')
        changes.bump(connection, changes.CATALOG)
    cores.of(req).db.transact(store)


def _check(req, table, values, what):
    with req.db.read() as connection:
        if connection.execute(sa.select(table).where(*(table.c[name] == value for name, value in values.items()))).first() is None:
            raise errors.NotFound(f'{what} is not associated with the project.')


@routes.put(PAIR, rule='identity:add_endpoint_to_project', default=rules.ADMIN, load=load, status=204,
            summary='Show an endpoint to a project')
def add_endpoint(req, **ids):
    """Associate an endpoint with a project."""
    _associate(req, project_endpoints, ids)


@routes.get(PAIR, rule='identity:check_endpoint_in_project', default=rules.READ, load=load, status=204,
            summary='Check whether an endpoint is shown to a project')
def check_endpoint(req, **ids):
    """204 if the endpoint is associated with the project, else 404."""
    _check(req, project_endpoints, ids, 'The endpoint')


@routes.delete(PAIR, rule='identity:remove_endpoint_from_project', default=rules.ADMIN, load=load,
               summary='Take an endpoint away from a project')
def remove_endpoint(req, **ids):
    """End the association of an endpoint with a project."""
    _dissociate(req, project_endpoints, ids, 'The endpoint')


@routes.get('/projects/{project_id}/endpoints', rule='identity:list_endpoints_for_project', default=rules.READ, load=load,
            response=kit.many_of('endpoints'), summary='List endpoints that are shown to a project')
def endpoints_of_project(req, project_id):
    """List the endpoints associated with a project, through groups too."""
    with req.db.read() as connection:
        hidden = domain.hidden(connection, project_id)
        rows = connection.execute(sa.select(endpoints).order_by(endpoints.c.id)).all() if hidden is not None else []
    return kit.envelope(req, 'endpoints', [catalog.endpoint_view(req, row) for row in rows if row.id not in hidden])


@routes.get('/endpoints/{endpoint_id}/projects', rule='identity:list_projects_for_endpoint', default=rules.READ, load=load,
            response=kit.many_of('projects'), summary='List projects that an endpoint is shown to')
def projects_of_endpoint(req, endpoint_id):
    """List the projects associated with an endpoint."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(projects).join_from(project_endpoints, projects).where(
            project_endpoints.c.endpoint_id == endpoint_id).order_by(projects.c.id)).all()
        return project_api.collection(req, connection, rows)


@routes.get('/endpoint_groups', rule='identity:list_endpoint_groups', default=rules.READ, query=kit.parameters(HOW),
            response=kit.many_of('endpoint_groups'), summary='List endpoint groups')
def list_groups(req):
    """List endpoint groups."""
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, sa.select(endpoint_groups), 'endpoint_groups', lambda row: view(req, row))


@routes.post('/endpoint_groups', rule='identity:create_endpoint_group', default=rules.ADMIN, status=201,
             summary='Create an endpoint group',
             body=kit.body('endpoint_group', NEW, ['name', 'filters']), response=kit.one_of('endpoint_group', {}))
def create_group(req):
    """Create an endpoint group: the endpoints that have all the attributes of its filters."""
    asked = req.body['endpoint_group']
    row = {'id': db.new_hex(), **{name: asked.get(name) for name in KNOWN}}
    return {'endpoint_group': view(req, _store(req, endpoint_groups.insert().values(row), row['id']))}


def _store(req, statement, group_id):
    def store(connection):
        if statement is not None:
            connection.execute(statement)
            changes.bump(connection, changes.CATALOG)
        return connection.execute(sa.select(endpoint_groups).where(endpoint_groups.c.id == group_id)).one()
    return cores.of(req).db.transact(store)


@routes.get(GROUP, rule='identity:get_endpoint_group', default=rules.READ, load=load, response=kit.one_of('endpoint_group', {}),
            summary='Show an endpoint group')
def show_group(req, group_id):
    """Show an endpoint group."""
    return {'endpoint_group': view(req, req.row)}


@routes.patch(GROUP, rule='identity:update_endpoint_group', default=rules.ADMIN, load=load, body=kit.body('endpoint_group', FIELDS),
              response=kit.one_of('endpoint_group', {}), summary='Update an endpoint group')
def update_group(req, group_id):
    """Change an endpoint group."""
    asked = req.body['endpoint_group']
    kit.same_id(group_id, asked.get('id'))
    values = {name: asked[name] for name in KNOWN if name in asked}
    statement = sa.update(endpoint_groups).where(endpoint_groups.c.id == group_id).values(values) if values else None
    return {'endpoint_group': view(req, _store(req, statement, group_id))}


@routes.delete(GROUP, rule='identity:delete_endpoint_group', default=rules.ADMIN, load=load, summary='Delete an endpoint group')
def delete_group(req, group_id):
    """Delete an endpoint group."""
    def store(connection):
        connection.execute(sa.delete(endpoint_groups).where(endpoint_groups.c.id == group_id))
        changes.bump(connection, changes.CATALOG)
    cores.of(req).db.transact(store)


@routes.get(GROUP + '/endpoints', rule='identity:list_endpoints_associated_with_endpoint_group', default=rules.READ, load=load,
            response=kit.many_of('endpoints'), summary='List endpoints of an endpoint group')
def endpoints_of_group(req, group_id):
    """List the endpoints that an endpoint group's filters choose."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(endpoints).order_by(endpoints.c.id)).all()
    return kit.envelope(req, 'endpoints', [catalog.endpoint_view(req, row) for row in rows
                                           if domain.matches(row._mapping, req.row.filters)])


@routes.get(GROUP + '/projects', rule='identity:list_projects_associated_with_endpoint_group', default=rules.READ, load=load,
            response=kit.many_of('projects'), summary='List projects of an endpoint group')
def projects_of_group(req, group_id):
    """List the projects associated with an endpoint group."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(projects).join_from(project_endpoint_groups, projects).where(
            project_endpoint_groups.c.endpoint_group_id == group_id).order_by(projects.c.id)).all()
        return project_api.collection(req, connection, rows)


@routes.get('/projects/{project_id}/endpoint_groups', rule='identity:list_endpoint_groups_for_project', default=rules.READ,
            load=load,
            response=kit.many_of('endpoint_groups'), summary='List endpoint groups of a project')
def groups_of_project(req, project_id):
    """List the endpoint groups associated with a project."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(endpoint_groups).join_from(project_endpoint_groups, endpoint_groups).where(
            project_endpoint_groups.c.project_id == project_id).order_by(endpoint_groups.c.id)).all()
    return kit.envelope(req, 'endpoint_groups', [view(req, row) for row in rows])


def _pair(group_id, project_id):
    return {'endpoint_group_id': group_id, 'project_id': project_id}


@routes.put(GROUP_PAIR, rule='identity:add_endpoint_group_to_project', default=rules.ADMIN, load=load, status=204,
            summary='Associate an endpoint group with a project')
def add_group(req, group_id, project_id):
    """Show the endpoints of a group to a project."""
    _associate(req, project_endpoint_groups, _pair(group_id, project_id))


ASSOCIATION = schema.wrap('project_endpoint_group', {'type': 'object'})


@routes.get(GROUP_PAIR, rule='identity:get_endpoint_group_in_project', default=rules.READ, load=load,
            response=ASSOCIATION, summary='Check whether an endpoint group is associated with a project')
def check_group(req, group_id, project_id):
    """The association; 404 if there is none."""
    _check(req, project_endpoint_groups, _pair(group_id, project_id), 'The endpoint group')
    return {'project_endpoint_group': {**_pair(group_id, project_id), 'links': {'self': req.url}}}


@routes.delete(GROUP_PAIR, rule='identity:remove_endpoint_group_from_project', default=rules.ADMIN, load=load,
               summary='End the association of an endpoint group with a project')
def remove_group(req, group_id, project_id):
    """End the association."""
    _dissociate(req, project_endpoint_groups, _pair(group_id, project_id), 'The endpoint group')
