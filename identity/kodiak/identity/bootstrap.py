"""The first rows: default domain, admin, roles, and identity's own place in the catalog. Repeating it repairs, never resets."""
import sqlalchemy as sa

from kodiak.common import db

from . import changes, people
from .models import NO_DOMAIN, assignments, endpoints, implied_roles, projects, regions, roles, services, users

ROLES = ('admin', 'manager', 'member', 'reader', 'service')
IMPLIED = (('admin', 'manager'), ('manager', 'member'), ('member', 'reader'))
INTERFACES = ('public', 'internal', 'admin')


def run(core, password, urls, *, user='admin', project='admin', region='RegionOne', service='keystone'):
    """Make what is missing.

    :param password: of the admin user; set if the user is new or has another one. :param urls: interface to URL of identity.
    :returns: sentences that say what was made.
    """
    hashed = core.hasher.hash(password)
    return core.db.transact(_run, core, password, hashed, urls, user, project, region, service)


def _run(connection, core, password, hashed, urls, user, project, region, service):
    said = []

    def ensure(table, where, values, what):
        row = db.one(connection, sa.select(table).where(*(table.c[name] == value for name, value in where.items())))
        if row is None:
            row = {**where, **values}
            connection.execute(table.insert().values(row))
            said.append(f'Created {what}.')
        return row

    ensure(projects, {'id': 'default'}, {
        'domain_id': NO_DOMAIN, 'name': 'Default', 'is_domain': True, 'description': 'The default domain', 'enabled': True,
        'extra': {}, 'options': {}}, 'domain Default')
    made_project = ensure(projects, {'domain_id': 'default', 'name': project}, {
        'id': db.new_hex(), 'parent_id': 'default', 'is_domain': False, 'enabled': True,
        'description': 'The project of the administrator', 'extra': {}, 'options': {}}, f'project {project}')
    found = {}
    for name in ROLES:
        found[name] = ensure(roles, {'name': name, 'domain_id': NO_DOMAIN}, {
            'id': db.new_hex(), 'description': None, 'extra': {}, 'options': {'immutable': True}}, f'role {name}')['id']
    for prior, implied in IMPLIED:
        ensure(implied_roles, {'prior_id': found[prior], 'implied_id': found[implied]}, {}, f'implied role {prior} > {implied}')
    made_user = ensure(users, {'name': user, 'domain_id': 'default'}, {
        'id': db.new_hex(), 'kind': 'local', 'enabled': True, 'extra': {}, 'options': {}, 'created_at': db.utcnow(),
        'failed_count': 0}, f'user {user}')
    _password(connection, core, made_user, password, hashed, said)
    for kind, target in (('project', made_project['id']), ('system', 'system')):
        ensure(assignments, {'actor_kind': 'user', 'actor_id': made_user['id'], 'target_kind': kind, 'target_id': target,
                             'role_id': found['admin'], 'inherited': False}, {}, f'role admin of {user} on {kind}')
    ensure(regions, {'id': region}, {'parent_region_id': None, 'description': '', 'extra': {}}, f'region {region}')
    made_service = ensure(services, {'type': 'identity', 'name': service}, {
        'id': db.new_hex(), 'enabled': True, 'extra': {}}, 'service identity')
    for interface in INTERFACES:
        if urls.get(interface):
            row = ensure(endpoints, {'service_id': made_service['id'], 'interface': interface, 'region_id': region}, {
                'id': db.new_hex(), 'url': urls[interface], 'enabled': True, 'extra': {}}, f'{interface} endpoint of identity')
            if row['url'] != urls[interface]:
                connection.execute(sa.update(endpoints).where(endpoints.c.id == row['id']).values(url=urls[interface]))
                said.append(f'Moved the {interface} endpoint of identity.')
    if said:
        changes.bump(connection, changes.RESOURCE, changes.ASSIGNMENT, changes.CATALOG, changes.REVOCATION)
    return said


def _password(connection, core, user, password, hashed, said):
    row = connection.execute(people.PASSWORD, {'user_id': user['id']}).first()
    if row is not None and core.hasher.verify(password, row.hash):
        return
    people.add_password(core, connection, user, hashed, self_service=True)
    connection.execute(sa.update(users).where(users.c.id == user['id']).values(enabled=True))
    if row is not None:
        core.revoke(connection, {'user_id': user['id']})
    said.append(f"Set the password of user {user['name']}.")
