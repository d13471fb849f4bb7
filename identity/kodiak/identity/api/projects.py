"""Projects: a forest with a domain as the root of each tree; tags."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import limits as limit_domain
from .. import notices, resources, roles
from ..models import NO_DOMAIN, project_tags, projects
from . import kit, rules
from . import limits as limit_api
from . import users as user_api

routes = api.Routes('projects', '/v3')

KNOWN = ('name', 'domain_id', 'parent_id', 'is_domain', 'description', 'enabled', 'options', 'tags')
TAG = {'type': 'string', 'minLength': 1, 'maxLength': 255, 'pattern': '^[^,/]*$'}
TAGS = schema.array(TAG, maxItems=80, uniqueItems=True)
FIELDS = {'name': kit.SHORT_NAME, 'domain_id': schema.nullable(kit.ID), 'parent_id': schema.nullable(kit.ID), 'is_domain': kit.FLAG,
          'description': kit.TEXT, 'enabled': kit.FLAG, 'options': kit.IMMUTABLE, 'tags': TAGS}
#: what may be shown of the tree that a project stands in
TREE = ('parents_as_list', 'parents_as_ids', 'subtree_as_list', 'subtree_as_ids', 'include_limits')
SHOWN = {'id': schema.STRING, 'name': schema.STRING, 'domain_id': schema.TEXT, 'parent_id': schema.TEXT, 'is_domain': kit.FLAG,
         'description': schema.TEXT, 'enabled': kit.FLAG, 'tags': schema.array(schema.STRING), 'options': schema.ANY}


def _names(values):
    return [name for value in values for name in value.split(',') if name]


def _having(values):
    return sa.and_(sa.true(), *(projects.c.id.in_(sa.select(project_tags.c.project_id).where(project_tags.c.name == name))
                     for name in _names(values)))


def _having_any(values):
    return projects.c.id.in_(sa.select(project_tags.c.project_id).where(project_tags.c.name.in_(_names(values))))


HOW = kit.listing_of(projects.c.id, {
    **kit.text_filters(name=projects.c.name), 'domain_id': projects.c.domain_id, 'parent_id': projects.c.parent_id,
    'enabled': kit.flag_filter(projects.c.enabled), 'is_domain': kit.flag_filter(projects.c.is_domain),
    'tags': _having, 'tags-any': _having_any, 'not-tags': lambda values: sa.not_(_having(values)),
    'not-tags-any': lambda values: sa.not_(_having_any(values))}, {'name': projects.c.name})


def view(prefix, row, tags):
    """A project as the API shows it; ``prefix`` is the URL of the projects."""
    return {'id': row.id, 'name': row.name, 'domain_id': kit.domain_or_none(row.domain_id), 'description': row.description or '',
            'enabled': row.enabled, 'parent_id': row.parent_id, 'is_domain': row.is_domain, 'tags': tags, 'options': row.options,
            **row.extra, 'links': {'self': prefix + row.id}}


def tags_of(connection, ids):
    """``{project id: [tags]}`` of many projects, those without tags left out."""
    found = {}
    if ids is not None and len(ids) <= 500:
        select = sa.select(project_tags).where(project_tags.c.project_id.in_(ids))
    else:
        select = sa.select(project_tags)
    for row in connection.execute(select.order_by(project_tags.c.name)):
        found.setdefault(row.project_id, []).append(row.name)
    return found


def collection(req, connection, rows, following=None):
    """The answer of a list of projects."""
    tags = tags_of(connection, [row.id for row in rows]) if rows else {}
    prefix = req.base_url + '/v3/projects/'
    return kit.envelope(req, 'projects', [view(prefix, row, tags.get(row.id, [])) for row in rows], following)


def load(req, project_id):
    """The project as a policy target."""
    with req.db.read() as connection:
        row = connection.execute(sa.select(projects).where(projects.c.id == project_id)).first()
    if row is None:
        kit.missing(req, f'Could not find project: {project_id}.')
    req.row = row
    return {'target.project.id': row.id, 'project_id': row.id,
            # A domain is no project of its own domain: managing one takes the rules of domains.
            'target.project.domain_id': kit.domain_or_none(row.domain_id)}


def _shown(req, connection, project_id):
    row = connection.execute(sa.select(projects).where(projects.c.id == project_id)).one()
    return view(req.base_url + '/v3/projects/', row, tags_of(connection, [project_id]).get(project_id, []))


@routes.get('/projects', rule='identity:list_projects', default=rules.LIST, late=True, query=kit.parameters(HOW),
            response=kit.many_of('projects', SHOWN), summary='List projects')
def list_projects(req):
    """List projects; domains only with ``is_domain=true``. A token of a domain sees that domain's."""
    req.authorize({'target.domain_id': kit.list_domain(req)})
    select = sa.select(projects)
    if req.ctx.domain_id:
        select = select.where(projects.c.domain_id == req.ctx.domain_id)
    if 'is_domain' not in req.query:
        select = select.where(projects.c.is_domain.is_(False))
    from kodiak.common.api import listing
    with req.db.read() as connection:
        rows, more = HOW.page(connection, select, req.query)
        return collection(req, connection, rows, listing.next_url(req, rows[-1].id) if more and rows else None)


@routes.post('/projects', rule='identity:create_project', default=rules.PROJECT_WRITE, late=True, status=201,
             body=kit.body('project', FIELDS, ['name']), response=kit.one_of('project', SHOWN), summary='Create a project')
def create(req):
    """Create a project, or with ``is_domain`` a domain."""
    core, asked = cores.of(req), req.body['project']
    is_domain = asked.get('is_domain', False)
    with req.db.read() as connection:
        domain_id, parent_id = _position(req, core, connection, asked, is_domain)
    req.authorize({'target.project.domain_id': domain_id or None})
    row = {'id': db.new_hex(), 'name': kit.clean(asked['name']), 'domain_id': domain_id, 'parent_id': parent_id,
           'is_domain': is_domain, 'description': asked.get('description'), 'enabled': asked.get('enabled', True),
           'extra': kit.extra_of(asked, KNOWN), 'options': kit.with_options({'options': {}}, asked)}

    def store(connection):
        resources.check_parent(core, connection, row)
        resources.insert(connection, row, asked.get('tags', ()))
        return _shown(req, connection, row['id'])
    return {'project': _stored(core, store, row)}


def _position(req, core, connection, asked, is_domain):
    """``(domain id, parent id)`` of a new project."""
    domain_id, parent_id = asked.get('domain_id'), asked.get('parent_id')
    if is_domain:
        if domain_id or parent_id:
            raise errors.BadRequest('A project that acts as a domain has neither a domain nor a parent '
                                    '(project.domain_id, project.parent_id).')
        return NO_DOMAIN, None
    if parent_id is not None:
        parent = roles.place(core, connection, parent_id)
        if parent is None:
            raise errors.BadRequest(f'Could not find project: {parent_id} (project.parent_id).')
        above = parent.domain['id']
        if domain_id is not None and domain_id != above:
            raise errors.BadRequest('A project must be in the domain of its parent (project.domain_id, project.parent_id).')
        return above, parent_id
    domain_id = domain_id or kit.own_domain(req)
    return domain_id, domain_id


def _stored(core, store, row):
    try:
        return core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise kit.conflict('domain' if row.get('is_domain') else 'project', row.get('name')) from None
        raise


def _listed(req, connection, rows):
    """Projects of a tree, those that the request's user can reach."""
    mine = None if req.ctx.is_admin else roles.reachable(connection, req.ctx.user_id)[0]
    rows = [row for row in rows if mine is None or row.id in mine]
    ids = [row.id for row in rows]
    tags = tags_of(connection, ids)
    found = [view(req.base_url + '/v3/projects/', row, tags.get(row.id, [])) for row in rows]
    if kit.flag(req, 'include_limits'):
        theirs = limit_domain.of_projects(connection, ids)
        for shown in found:
            shown['limits'] = [limit_api.view(req, row) for row in theirs.get(shown['id'], ())]
    return [{'project': shown} for shown in found]


@routes.get('/projects/{project_id}', rule='identity:get_project', default=rules.PROJECT_READ, load=load,
            query=dict.fromkeys(TREE, schema.STRING),
            response=kit.one_of('project', SHOWN), summary='Show a project')
def show(req, project_id):
    """Show a project; ``parents_as_list``, ``parents_as_ids``, ``subtree_as_list`` and ``subtree_as_ids`` add its tree.

    ``include_limits`` adds to each project of a list the limits that it has.
    """
    parents, parent_ids, subtree, subtree_ids = (kit.flag(req, name) for name in TREE[:4])
    if (parents and parent_ids) or (subtree and subtree_ids):
        raise errors.BadRequest('Use either the list or the ids of parents and subtree, not both.')
    with req.db.read() as connection:
        found = view(req.base_url + '/v3/projects/', req.row, tags_of(connection, [project_id]).get(project_id, []))
        if parents:
            found['parents'] = _listed(req, connection, resources.above(connection, req.row))
        if parent_ids:
            nested = None
            for row in reversed(resources.above(connection, req.row)):
                nested = {row.id: nested}
            found['parents'] = nested
        if subtree:
            found['subtree'] = _listed(req, connection, resources.below(connection, project_id))
        if subtree_ids:
            found['subtree'] = resources.nested(resources.below(connection, project_id), project_id)
    return {'project': found}


@routes.patch('/projects/{project_id}', rule='identity:update_project', default=rules.PROJECT_WRITE, load=load,
              body=kit.body('project', FIELDS), response=kit.one_of('project', SHOWN), summary='Update a project')
def update(req, project_id):
    """Change a project; ``enabled: false`` revokes its tokens."""
    core, asked, row = cores.of(req), req.body['project'], req.row._mapping
    kit.same_id(project_id, asked.get('id'))
    kit.immutable_patch(row, asked, 'project')
    for name, current in (('domain_id', kit.domain_or_none(row['domain_id'])), ('parent_id', row['parent_id']),
                          ('is_domain', row['is_domain'])):
        if name in asked and asked[name] != current:
            if name == 'parent_id':
                raise errors.Forbidden('Cannot change parent_id of a project.')
            raise errors.BadRequest(f'Cannot change {name} of a project (project.{name}).')
    values = kit.merged(row, asked, ('description', 'enabled'), KNOWN)
    if 'name' in asked:
        values['name'] = kit.clean(asked['name'])
    if 'options' in asked:
        values['options'] = kit.with_options(row, asked)

    def store(connection):
        resources.change(core, connection, row, values)
        if 'tags' in asked:
            resources.set_tags(connection, project_id, asked['tags'])
        return _shown(req, connection, project_id)
    return {'project': _stored(core, store, {**row, **values})}


@routes.delete('/projects/{project_id}', rule='identity:delete_project', default=rules.PROJECT_WRITE, load=load,
               summary='Delete a project')
def delete(req, project_id):
    """Delete a project that has no projects below it; its tokens are revoked."""
    core, row = cores.of(req), req.row._mapping
    kit.immutable(row, 'project')
    core.db.transact(lambda connection: resources.delete(core, connection, row))


@routes.patch('/projects/{project_id}/cascade', rule='identity:update_project_cascade', default=rules.PROJECT_WRITE, load=load,
              body=kit.body('project', {'enabled': kit.FLAG}, ['enabled'], extra=False),
              response=kit.one_of('project', SHOWN), summary='Enable or disable a project with all below it')
def switch_tree(req, project_id):
    """Enable or disable a project and every project below it, all or none; disabling revokes their tokens."""
    def store(connection):
        resources.switch_tree(core, connection, row, req.body['project']['enabled'])
        return _shown(req, connection, project_id)
    core, row = cores.of(req), req.row._mapping
    return {'project': core.db.transact(store)}


@routes.delete('/projects/{project_id}/cascade', rule='identity:delete_project_cascade', default=rules.PROJECT_WRITE, load=load,
               summary='Delete a project with all below it')
def delete_tree(req, project_id):
    """Delete a project and every project below it, all or none; all of them must be disabled."""
    core, row = cores.of(req), req.row._mapping
    core.db.transact(lambda connection: resources.delete_tree(core, connection, row))


@routes.get('/users/{user_id}/projects', rule='identity:list_user_projects', load=user_api.load, default=rules.USER_READ,
            query=kit.parameters(HOW), response=kit.many_of('projects'), summary='List projects of a user')
def user_projects(req, user_id):
    """List the projects in which a user has a role."""
    with req.db.read() as connection:
        ids = roles.reachable(connection, user_id)[0]
        rows, _ = HOW.page(connection, sa.select(projects).where(projects.c.id.in_(ids)), req.query)
        return collection(req, connection, rows)


def load_tag(req, project_id, tag):
    """The project of a tag as a policy target."""
    return load(req, project_id)


TAG_PATH = '/projects/{project_id}/tags'
TAGGED = schema.obj({'tags': schema.array(schema.STRING), 'links': kit.LINKS}, ['tags', 'links'])


@routes.get(TAG_PATH, rule='identity:list_project_tags', default=rules.PROJECT_READ, load=load,
            response=TAGGED, summary='List tags of a project')
def list_tags(req, project_id):
    """List the tags of a project."""
    with req.db.read() as connection:
        tags = tags_of(connection, [project_id]).get(project_id, [])
    return {'tags': tags, 'links': {'self': req.url, 'next': None, 'previous': None}}


@routes.put(TAG_PATH, rule='identity:update_project_tags', default=rules.PROJECT_WRITE, load=load,
            response=TAGGED, summary='Replace tags of a project', body=schema.obj({'tags': TAGS}, ['tags'], extra=True))
def replace_tags(req, project_id):
    """Replace the tags of a project."""
    _set_tags(req, project_id, req.body['tags'])
    return list_tags(req, project_id)


@routes.delete(TAG_PATH, rule='identity:delete_project_tags', default=rules.PROJECT_WRITE, load=load,
               summary='Remove all tags of a project')
def delete_tags(req, project_id):
    """Remove all tags of a project."""
    _set_tags(req, project_id, ())


def _set_tags(req, project_id, tags):
    def store(connection):
        resources.set_tags(connection, project_id, tags)
        notices.tell(connection, 'project', 'updated', project_id)
    cores.of(req).db.transact(store)


@routes.get(TAG_PATH + '/{tag}', rule='identity:get_project_tag', default=rules.PROJECT_READ, load=load_tag,
            status=204, summary='Check whether a project has a tag')
def check_tag(req, project_id, tag):
    """204 if the project has the tag, else 404."""
    with req.db.read() as connection:
        if tag not in tags_of(connection, [project_id]).get(project_id, ()):
            raise errors.NotFound(f'Could not find project tag: {tag}.')


@routes.put(TAG_PATH + '/{tag}', rule='identity:create_project_tag', default=rules.PROJECT_WRITE, load=load_tag,
            status=201, summary='Add a tag to a project')
def add_tag(req, project_id, tag):
    """Add a tag to a project."""
    if ',' in tag or len(tag) > 255:
        raise errors.BadRequest('Invalid input for field/attribute tag: it must have at most 255 characters and no '
                                'comma.')

    def store(connection):
        tags = tags_of(connection, [project_id]).get(project_id, [])
        if tag not in tags:
            if len(tags) >= 80:
                raise errors.BadRequest('A project can have 80 tags at most (tags).')
            connection.execute(project_tags.insert().values(project_id=project_id, name=tag))
            notices.tell(connection, 'project', 'updated', project_id)
    cores.of(req).db.transact(store)
    return api.Response(headers={'Location': req.url})


@routes.delete(TAG_PATH + '/{tag}', rule='identity:delete_project_tag', default=rules.PROJECT_WRITE, load=load_tag,
               summary='Remove a tag of a project')
def delete_tag(req, project_id, tag):
    """Remove a tag of a project."""
    def store(connection):
        if not connection.execute(sa.delete(project_tags).where(project_tags.c.project_id == project_id,
                                                                project_tags.c.name == tag)).rowcount:
            raise errors.NotFound(f'Could not find project tag: {tag}.')
        notices.tell(connection, 'project', 'updated', project_id)
    cores.of(req).db.transact(store)
