"""Servers: listing, showing, changing, deleting."""
import re

import sqlalchemy as sa

from kodiak.common import api, db, errors, heartbeat, policy
from kodiak.common.api import listing, schema
from kodiak.compute import states, store, view
from kodiak.compute.api import common
from kodiak.compute.api.create import address, check_hostname
from kodiak.compute.models import server_tags, servers, services
from kodiak.compute.sagas import delete as deletion
from kodiak.compute.scheduler import BINARY

routes = api.Routes('servers')
ATTRIBUTES = 'os_compute_api:os-extended-server-attributes'
HOST_STATUS = 'os_compute_api:servers:show:host_status'
EXTRA_RULES = [
    (ATTRIBUTES, policy.ADMIN, 'See the host, the hypervisor and the other OS-EXT-SRV-ATTR fields of servers'),
    (HOST_STATUS, policy.ADMIN, 'See whether the host of a server is up'),
    ('os_compute_api:servers:index:get_all_tenants', policy.ADMIN, 'List the servers of all projects'),
    ('os_compute_api:servers:allow_all_filters', policy.ADMIN, 'Filter servers by what only operators know'),
]
SORTS = {
    'created_at': servers.c.created_at, 'updated_at': servers.c.updated_at, 'uuid': servers.c.uuid, 'display_name': servers.c.name,
    'host': servers.c.host, 'node': servers.c.node, 'vm_state': servers.c.vm_state, 'task_state': servers.c.task_state,
    'power_state': servers.c.power_state, 'project_id': servers.c.project_id, 'user_id': servers.c.user_id,
    'image_ref': servers.c.image_ref, 'instance_type_id': servers.c.flavor_id, 'key_name': servers.c.key_name,
    'launched_at': servers.c.launched_at, 'terminated_at': servers.c.terminated_at, 'availability_zone': servers.c.zone,
    'hostname': servers.c.hostname, 'config_drive': servers.c.config_drive, 'progress': servers.c.progress,
    'access_ip_v4': servers.c.access_ip_v4, 'access_ip_v6': servers.c.access_ip_v6, 'auto_disk_config': servers.c.disk_config,
    'display_description': servers.c.description, 'launch_index': servers.c.launch_index, 'launched_on': servers.c.launched_on,
    'root_device_name': servers.c.root_device, 'locked': servers.c.locked_by,
}
LIST = api.Listing(servers.c.uuid, SORTS, [('created_at', 'desc')], max_limit=common.MAX_PAGE)
#: Filters that anybody may use; others need allow_all_filters and are ignored otherwise.
OPEN_FILTERS = {'reservation_id', 'name', 'status', 'image', 'flavor', 'ip', 'changes-since', 'all_tenants', 'tags', 'tags-any',
                'not-tags',
                'not-tags-any', 'changes-before', 'ip6', 'locked', 'availability_zone', 'config_drive', 'key_name', 'created_at',
                'launched_at', 'terminated_at', 'power_state', 'task_state', 'vm_state', 'progress', 'user_id', 'limit', 'marker',
                'sort_key', 'sort_dir', 'deleted'}
EXACT = {'reservation_id': servers.c.reservation_id, 'image': servers.c.image_ref, 'flavor': servers.c.flavor_id,
         'host': servers.c.host,
         'node': servers.c.node, 'user_id': servers.c.user_id, 'project_id': servers.c.project_id,
         'tenant_id': servers.c.project_id,
         'uuid': servers.c.uuid, 'task_state': servers.c.task_state, 'vm_state': servers.c.vm_state, 'key_name': servers.c.key_name,
         'availability_zone': servers.c.zone, 'launch_index': servers.c.launch_index, 'progress': servers.c.progress,
         'power_state': servers.c.power_state, 'kernel_id': None, 'ramdisk_id': None}
MATCHING = {'name': servers.c.name, 'display_name': servers.c.name, 'hostname': servers.c.hostname,
            'description': servers.c.description,
            'display_description': servers.c.description, 'instance_name': None}
QUERY = LIST.parameters(**dict.fromkeys((*EXACT, *MATCHING, 'changes-since', 'changes-before', 'all_tenants', 'deleted', 'ip',
                                         'ip6', 'tags', 'tags-any', 'not-tags', 'not-tags-any', 'locked', 'config_drive',
                                         'soft_deleted'), schema.STRING),
                        status=schema.array(schema.STRING))
SERVER = schema.obj({'id': schema.STRING, 'name': schema.STRING, 'links': common.LINKS}, ['id'], extra=True)


# Filters

def timestamp(text, name):
    """A time in a query as a datetime; ``BadRequest`` names the field."""
    try:
        return db.parse_time(text)
    except ValueError:
        raise errors.BadRequest(f'Invalid {name} value: {text[:80]}') from None


def _pattern(text, name):
    """A regular expression that a caller gave, refused where it is none or could take for ever."""
    try:
        re.compile(text)
    except re.error as error:
        raise errors.BadRequest(f"Invalid regular expression '{text[:80]}' for {name}: {error}") from None
    # Repetitions of repetitions, and many in a row, can take longer than anybody waits.
    if len(text) > 255 or re.search(r'[)*+}][*+{]', text) or len(re.findall('[*+{]', text)) > 3:
        raise errors.BadRequest(f"The regular expression '{text[:80]}' for {name} is too complex.")
    return text


def matching(column, text, name):
    """The SQL condition of a filter by regular expression; plain text, the usual case, needs none."""
    if re.fullmatch(r'[\w @:-]*', text):
        return column.contains(text, autoescape=True)
    return column.regexp_match(_pattern(text, name))


def _tags(values, name):
    tags = {tag for tag in values.split(',') if tag}
    tagged = sa.select(server_tags.c.server_uuid).where(server_tags.c.tag.in_(tags))
    every = tagged.group_by(server_tags.c.server_uuid).having(sa.func.count() == len(tags))
    return {'tags': servers.c.uuid.in_(every), 'tags-any': servers.c.uuid.in_(tagged), 'not-tags': servers.c.uuid.not_in(every),
            'not-tags-any': servers.c.uuid.not_in(tagged)}[name]


def _conditions(req):
    query, admin = req.query, req.allows('os_compute_api:servers:allow_all_filters')
    conditions = []
    if not _all_projects(req):
        conditions.append(servers.c.project_id == req.ctx.project_id)
    elif query.get('project_id') or query.get('tenant_id'):
        conditions.append(servers.c.project_id == (query.get('project_id') or query.get('tenant_id')))
    since, before = query.get('changes-since'), query.get('changes-before')
    if before and not req.at_least(2, 66):
        before = None
    statuses = [status.upper() for status in query.get('status') or []]
    deleted = False
    if since:
        conditions.append(servers.c.updated_at >= timestamp(since, 'changes-since'))
        deleted = None
    if before:
        if since and timestamp(since, 'changes-since') > timestamp(before, 'changes-before'):
            raise errors.BadRequest('The value of changes-since must be less than or equal to changes-before.')
        conditions.append(servers.c.updated_at <= timestamp(before, 'changes-before'))
        deleted = None
    if 'DELETED' in statuses:
        if not admin:
            raise errors.Forbidden('Only administrators may list deleted instances')
        deleted = None if len(statuses) > 1 else True
    if admin and query.get('deleted') is not None:
        deleted = schema.boolean(query['deleted'], 'deleted')
    if deleted is not None:
        conditions.append(servers.c.deleted.is_(deleted))
    if statuses:
        known = {*states.STATUS.values(), *(task.shown for task in states.TASKS.values() if task.shown)}
        if not known & set(statuses):
            return None
        conditions.append(servers.c.status.in_(statuses))
    elif deleted is False and 'vm_state' not in query:
        conditions.append(servers.c.vm_state != states.SOFT_DELETED)
    for name, column in EXACT.items():
        if name in query and column is not None and name not in ('project_id', 'tenant_id') and (name in OPEN_FILTERS or admin):
            value = query[name]
            if column.type.python_type is int:
                value = schema.integer(value, name, -2 ** 31, 2 ** 31 - 1)
            conditions.append(column == (None if value == 'None' else value))
    for name, column in MATCHING.items():
        if name in query and column is not None and (name in OPEN_FILTERS or admin):
            conditions.append(matching(column, query[name], name))
    for name in ('ip', 'ip6'):
        if name in query and (name == 'ip' or admin or req.at_least(2, 5)):
            conditions.append(servers.c.addresses.regexp_match(_ip(query[name], name)))
    if req.at_least(2, 26):
        for name in ('tags', 'tags-any', 'not-tags', 'not-tags-any'):
            if name in query:
                conditions.append(_tags(query[name], name))
    if 'locked' in query and req.at_least(2, 73):
        conditions.append(servers.c.locked_by.is_not(None) if schema.boolean(query['locked'],
                                                                             'locked') else servers.c.locked_by.is_(None))
    if 'config_drive' in query:
        conditions.append(servers.c.config_drive.is_(schema.boolean(query['config_drive'], 'config_drive')))
    return conditions


def _ip(text, name):
    """A filter by address: a regular expression that one of a server's addresses must begin with."""
    text = text.removeprefix('^')
    return '(^| )' + _pattern(text, name).replace('.*', '[^ ]*').removesuffix('$') + ('( |$)' if text.endswith('$') else '')


def _all_projects(req):
    value = req.query.get('all_tenants')
    if value is None:
        return False
    if value and not schema.boolean(value, 'all_tenants'):
        return False
    req.authorize(rule='os_compute_api:servers:index:get_all_tenants')
    return True


def _check_query(req):
    for name in ('sort_key',):
        for key in req.query.get(name) or []:
            if key not in SORTS and key != 'id':
                raise errors.BadRequest(f'Invalid sort key: {key}')
    if any(key == 'locked' for key in req.query.get('sort_key') or []) and not req.at_least(2, 73):
        raise errors.BadRequest('Invalid sort key: locked')


def _visible(req):
    return None if _all_projects(req) else servers.c.project_id == req.ctx.project_id


def _list(req, columns, assemble):
    _check_query(req)
    conditions = _conditions(req)
    if conditions is None:
        return '{"servers":[]}'
    with req.db.read() as connection:
        rows, more = LIST.page(connection, sa.select(*columns).where(*conditions), req.query, visible=_visible(req))
        text = assemble(connection, rows)
    text = '{"servers":[' + text + ']'
    if more:
        href = listing.next_url(req, rows[-1].uuid).replace('"', '%22')
        text += f',"servers_links":[{{"rel":"next","href":"{href}"}}]'
    return view.fill(text + '}', req.base_url, req.api.prefix)


def json(text):
    """JSON text as a response."""
    return api.Response(text.encode(), media_type='application/json')


@routes.get('/servers', rule='os_compute_api:servers:index', default=policy.READER, query=QUERY, summary='List servers')
def index(req):
    def assemble(connection, rows):
        dumps = db.orjson.dumps
        return ','.join([
            f'{{"id":"{row.uuid}","name":{dumps(row.name).decode()},"links":[{{"rel":"self","href":"{view.VERSIONED}/servers/{row.uuid}"}},'
            f'{{"rel":"bookmark","href":"{view.ROOT}/servers/{row.uuid}"}}]}}' for row in rows])
    return json(_list(req, (servers.c.uuid, servers.c.name), assemble))


def pieces(req):
    """What of a server's document this caller sees at this microversion."""
    return view.chosen(req.version, req.allows(ATTRIBUTES), req.at_least(2, 90))


def _more(req, connection, row, hosts, user_data=None):
    text = ''
    if hosts is not None:
        text += f',"host_status":"{hosts.get(row.host, "UNKNOWN") if row.host else ""}"'
    if req.at_least(2, 63):
        text += ',"trusted_image_certificates":null'
    return text


def host_statuses(req, connection, names=None):
    """``{host: UP, DOWN, MAINTENANCE}``, or None where the caller is not told."""
    if not req.at_least(2, 16) or not req.allows(HOST_STATUS):
        return None
    query = sa.select(services).where(services.c.binary == BINARY)
    if names is not None:
        query = query.where(services.c.host.in_(names))
    now = db.utcnow()
    return {row['host']: 'MAINTENANCE' if row['disabled'] else 'UP' if heartbeat.is_up(row, now) else
            'DOWN' if row['forced_down'] else 'UNKNOWN' for row in connection.execute(query).mappings()}


def shown(req, connection, rows):
    """The JSON texts of servers (rows with ``uuid``, ``doc``, ``host``, ``user_data``), URLs not yet filled in."""
    chosen = pieces(req)
    hosts = host_statuses(req, connection)
    with_data = view.ADMIN_2_3 in chosen
    texts = []
    for row in rows:
        more = _more(req, connection, row, hosts)
        if with_data:
            more += ',"OS-EXT-SRV-ATTR:user_data":' + (f'"{row.user_data}"' if row.user_data else 'null')
        texts.append(view.assemble(row.doc, chosen, more))
    return texts


def _columns(req):
    columns = [servers.c.uuid, servers.c.doc, servers.c.host]
    if req.at_least(2, 3) and req.allows(ATTRIBUTES):
        columns.append(servers.c.user_data)
    return columns


@routes.get('/servers/detail', rule='os_compute_api:servers:detail', default=policy.READER, query=QUERY,
            summary='List servers with details')
def detail(req):
    return json(_list(req, _columns(req), lambda connection, rows: ','.join(shown(req, connection, rows))))


def load_shown(req, server_id):
    """What showing a server needs of its row."""
    columns = [servers.c.uuid, servers.c.project_id, servers.c.user_id, servers.c.doc, servers.c.host, servers.c.group_uuid,
               servers.c.deleted]
    if req.at_least(2, 3) and req.allows(ATTRIBUTES):
        columns.append(servers.c.user_data)
    with req.db.read() as connection:
        row = db.one(connection, sa.select(*columns).where(servers.c.uuid == server_id))
    if row is None or row['deleted'] or not (row['project_id'] == req.ctx.project_id or req.ctx.is_admin):
        raise common.not_found('Instance', server_id)
    return row


def one(req, row, more='', user_data=True):
    """``{"server": ...}`` of a row as a response's text; ``more`` is further text in it."""
    chosen = pieces(req)
    hosts = None
    if req.at_least(2, 16) and req.allows(HOST_STATUS):
        with req.db.read() as connection:
            hosts = host_statuses(req, connection, [row['host']])
    text = ''
    if hosts is not None:
        text += f',"host_status":"{hosts.get(row["host"], "UNKNOWN") if row["host"] else ""}"'
    if req.at_least(2, 63):
        text += ',"trusted_image_certificates":null'
    if user_data and view.ADMIN_2_3 in chosen:
        text += ',"OS-EXT-SRV-ATTR:user_data":' + (f'"{row["user_data"]}"' if row['user_data'] else 'null')
    if req.at_least(2, 71):
        text += ',"server_groups":' + (f'["{row["group_uuid"]}"]' if row['group_uuid'] else '[]')
    return view.fill('{"server":' + view.assemble(row['doc'], chosen, text + more) + '}', req.base_url, req.api.prefix)


@routes.get('/servers/{server_id}', rule='os_compute_api:servers:show', default=policy.PROJECT_READER, load=load_shown,
            summary='Show a server')
def show(req, server_id):
    return json(one(req, req.target))


UPDATE = schema.wrap('server', schema.obj({
    'name': {'type': 'string', 'minLength': 1, 'maxLength': 255}, 'accessIPv4': schema.STRING, 'accessIPv6': schema.STRING,
    'OS-DCF:diskConfig': {'type': 'string', 'enum': ['AUTO', 'MANUAL']}, 'description': {'type': ['string', 'null'],
                                                                                         'maxLength': 255},
    'hostname': {'type': 'string', 'minLength': 2, 'maxLength': 255, 'pattern': '^[a-zA-Z0-9][a-zA-Z0-9-._]*$'}}))


@routes.put('/servers/{server_id}', rule='os_compute_api:servers:update', default=policy.PROJECT_MEMBER, load=common.load_server,
            body=UPDATE, summary='Change a server')
def update(req, server_id):
    sent = req.body['server']
    common.only(req, sent, since={'description': (2, 19), 'hostname': (2, 90)})
    changes = {}
    if 'name' in sent:
        changes['name'] = common.text(sent['name'].strip() if req.api.prefix == '/v2' else sent['name'], 'name')
    for field, column, version in (('accessIPv4', 'access_ip_v4', 4), ('accessIPv6', 'access_ip_v6', 6)):
        if field in sent:
            changes[column] = address(sent[field], field, version)
    if 'hostname' in sent:
        check_hostname(req, sent['hostname'])
    for field, column in (('OS-DCF:diskConfig', 'disk_config'), ('description', 'description'), ('hostname', 'hostname')):
        if field in sent:
            changes[column] = sent[field]

    def write(connection):
        return store.save(connection, common.locked(connection, server_id), **changes)
    row = req.db.transact(write)
    if req.at_least(2, 75):
        return json(one(req, row))
    return {'server': short(req, row)}


def short(req, row):
    """A server as the answers to changes showed it before 2.75."""
    found = db.orjson.loads(view.fill(view.assemble(row['doc'], pieces(req)), req.base_url, req.api.prefix))
    hidden = ('OS-EXT-', 'OS-SRV-USG', 'os-extended-volumes', 'config_drive', 'key_name', 'security_groups', 'host_status')
    found['addresses'] = view.addresses(row['networks'], macs=False)
    return {name: value for name, value in found.items() if not name.startswith(hidden)}


@routes.delete('/servers/{server_id}', rule='os_compute_api:servers:delete', default=policy.PROJECT_MEMBER, load=common.load_server,
               summary='Delete a server')
def delete(req, server_id):
    def write(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, 'delete', host=False)
        if req.app.conf.compute.reclaim_interval and row['vm_state'] not in (states.SOFT_DELETED, states.ERROR) and row['host']:
            deletion.soften(connection, req.app.bus, row, req.ctx)
        else:
            deletion.begin(connection, server_id, req.ctx, action='delete')
    req.db.transact(write)

