"""What a request for servers becomes: checked against image, network, flavor and quota, then written as rows and sagas.

At most three requests to other services stand in its way: the image, the networks, and the ports or security groups.
"""
import random
import re
import string
import time

import sqlalchemy as sa

from kodiak.common import db, errors, quota, saga
from kodiak.compute import conf as options
from kodiak.compute import limits, record, states, store
from kodiak.compute.models import groups, servers
from kodiak.compute.sagas import boot
from kodiak.compute.sagas.volumes import GRACE

GIB = 2 ** 30


# Image

def image(clients, image_id, context):
    """An image that a root disk can be made of, as ``agent.state.Image``; ``BadRequest`` otherwise."""
    try:
        found = clients.image.get(f'/v2/images/{image_id}', context=context)
    except errors.NotFound:
        raise errors.BadRequest(f'Can not find requested image {image_id}.') from None
    if found['status'] != 'active':
        raise errors.BadRequest(f'Image {image_id} is not active.')
    return described(found)


def described(found):
    """``agent.state.Image`` from an image of the image service; ``min_ram`` beside it."""
    known = {'id', 'name', 'status', 'visibility', 'protected', 'os_hidden', 'owner', 'checksum', 'os_hash_algo', 'os_hash_value',
             'size', 'virtual_size', 'disk_format', 'container_format', 'min_disk', 'min_ram', 'created_at', 'updated_at', 'file',
             'self', 'schema', 'tags', 'direct_url', 'locations', 'stores'}
    return {'id': found['id'], 'name': found.get('name') or '', 'disk_format': found.get('disk_format') or 'raw',
            'hash': found.get('os_hash_value') if found.get('os_hash_algo') == 'sha512' else None,
            'checksum': found.get('checksum'), 'size': found.get('size') or 0, 'min_disk': found.get('min_disk') or 0,
            'min_ram': found.get('min_ram') or 0, 'virtual_size': found.get('virtual_size') or 0,
            'properties': {name: value for name, value in found.items() if name not in known and isinstance(value, (str, int,
                                                                                                                    bool))}}


def check_fits(flavor, found):
    """``BadRequest`` where an image needs more than a flavor offers."""
    if flavor['ram'] < found['min_ram']:
        raise errors.BadRequest("Flavor's memory is too small for requested image.")
    root = flavor['root']
    if root == 0:
        return
    if found['min_disk'] > root:
        raise errors.BadRequest("Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is "
                                f'{root * GIB} bytes, minimum size is {found["min_disk"] * GIB} bytes.')
    size = max(found['size'], found['virtual_size'] or 0)
    if size > root * GIB:
        raise errors.BadRequest(f"Flavor's disk is too small for requested image. Flavor disk is {root * GIB} bytes, image is "
                                f'{size} bytes.')


# Networks

def networks(clients, asked, context, count=1, security_groups=()):
    """Check what was asked for and say it as :func:`kodiak.compute.ports.allocate` takes it.

    :param asked: None, ``'auto'``, ``'none'`` or a list of ``{'uuid', 'port', 'fixed_ip', 'tag'}``.
    :param security_groups: names or ids; looked up where ports will be made.
    :returns: ``(requests or 'none', ids of security groups, their names)``.
    """
    if asked == 'none':
        return 'none', [], []
    network = clients.network
    if asked in (None, 'auto'):
        found = _available(network, context)
        if len(found) > 1:
            raise errors.Conflict('Multiple possible networks found, use a Network ID to be more specific.')
        if not found:
            if asked != 'auto':
                return 'none', [], []
            _check_automatic(network, context)
        else:
            _check_network(found[0], context)
        requests = [{'network': found[0]['id'] if found else 'auto', 'port': None, 'fixed_ip': None, 'tag': None}]
    else:
        requests = _requested(network, asked, context, count)
    if not requests:
        return 'none', [], []
    ids, names = _groups(network, security_groups, context, any(not request['port'] for request in requests))
    return requests, ids, names


def _available(network, context):
    mine = network.get('/v2.0/networks', context=context)['networks']
    return [net for net in mine if net.get('admin_state_up', True) and (
        (net.get('project_id')
         or net.get('tenant_id')) == context.project_id or (net.get('shared') and not net.get('router:external')))]


def _check_automatic(network, context):
    try:
        network.get(f'/v2.0/auto-allocated-topology/{context.project_id}', params={'fields': 'dry-run'}, context=context)
    except (errors.NotFound, errors.Conflict, errors.BadRequest) as error:
        raise errors.BadRequest(
            f'Unable to automatically allocate a network for project {context.project_id}: {error.message}') from None


def _check_network(net, context):
    if net.get('router:external') and not net.get('shared') and not context.is_admin \
            and (net.get('project_id') or net.get('tenant_id')) != context.project_id:
        raise errors.Forbidden(f'It is not allowed to create an interface on external network {net["id"]}')
    if not net.get('subnets'):
        raise errors.BadRequest(f'Network {net["id"]} requires a subnet in order to boot instances on.')


def _requested(network, asked, context, count):
    wanted = {entry['uuid'] for entry in asked if entry.get('uuid') and not entry.get('port')}
    given = [entry['port'] for entry in asked if entry.get('port')]
    if len(set(given)) != len(given):
        raise errors.BadRequest('Port IDs must be unique.')
    if given and count > 1:
        raise errors.BadRequest('Unable to launch multiple instances with a single configured port ID. Please launch your '
                                'instance one by one with different ports.')
    if count > 1 and any(entry.get('fixed_ip') for entry in asked):
        raise errors.BadRequest('max_count cannot be greater than 1 if an fixed_ip is specified.')
    nets = {}
    if wanted:
        nets = {net['id']: net for net in network.get('/v2.0/networks', params={'id': sorted(wanted)}, context=context)['networks']}
        for missing in sorted(wanted - set(nets)):
            raise errors.BadRequest(f'Network {missing} could not be found.')
        for net in nets.values():
            _check_network(net, context)
    held = {}
    if given:
        held = {port['id']: port for port in network.get('/v2.0/ports', params={'id': given}, context=context)['ports']}
    requests = []
    for entry in asked:
        port = held.get(entry.get('port'))
        if entry.get('port') and port is None:
            raise errors.BadRequest(f'Port {entry["port"]} could not be found.')
        if port is not None:
            if port.get('device_id'):
                raise errors.Conflict(f'Port {port["id"]} is still in use.')
            if not port.get('fixed_ips') and not (port.get('ip_allocation') == 'none'):
                raise errors.BadRequest(f'Port {port["id"]} requires a FixedIP in order to be used.')
            if entry.get('fixed_ip'):
                raise errors.BadRequest(f"Specified Fixed IP '{entry['fixed_ip']}' cannot be used with port '{port['id']}': "
                                        'the two cannot be specified together.')
        requests.append({'network': port['network_id'] if port else entry['uuid'], 'port': port['id'] if port else None,
                         'fixed_ip': entry.get('fixed_ip'), 'tag': entry.get('tag')})
    return requests


def _groups(network, asked, context, needed):
    asked = list(dict.fromkeys(asked or ['default']))
    if asked == ['default'] or not needed:
        return [], asked
    found = network.get('/v2.0/security-groups', params={'project_id': context.project_id}, context=context)['security_groups']
    ids, names = [], []
    for wanted in asked:
        fitting = [group for group in found if group['id'] == wanted] or [group for group in found if group['name'] == wanted]
        if not fitting:
            raise errors.BadRequest(f'Security group {wanted} not found.')
        if len(fitting) > 1:
            raise errors.Conflict(f"Multiple security groups found matching '{wanted}'. Use an ID to be more specific.")
        ids.append(fitting[0]['id'])
        names.append(fitting[0]['name'])
    return ids, names


# Rows

def hostname_of(name, uuid):
    """A host name, without a domain, made of a server's name."""
    cleaned = re.sub(r'[^a-z0-9-]', '', re.sub(r'[ _.]', '-', name.lower())).strip('-')[:63].strip('-')
    return cleaned or f'server-{uuid}'


def reservation():
    """An id for the servers of one request."""
    return 'r-' + ''.join(random.choices(string.ascii_lowercase + string.digits, k=8))


def make(connection, conf, context, wanted, spec, least, most):
    """Write the rows of up to ``most`` servers and start their boot sagas.

    :param wanted: columns of ``servers`` that the request decided. :param spec: data of ``server_specs``.
    :returns: the rows.
    """
    flavor = wanted['flavor']
    each = {'instances': 1, 'cores': flavor['vcpus'], 'ram': flavor['ram']}
    count = limits.fitting(connection, conf, context.project_id, context.user_id, each, least, most)
    group = None
    if wanted.get('group_uuid'):
        group = _join_group(connection, conf, context, wanted['group_uuid'], count)
    now, together = db.utcnow(), reservation()
    spec = {**spec, 'request_id': context.request_id, 'project_name': context.project_name, 'user_name': context.user_name}
    rows = []
    for index in range(count):
        uuid = db.new_id()
        name = wanted['name'] if most == 1 else f'{wanted["name"]}-{index + 1}'
        hostname = wanted.get('hostname') or hostname_of(name, uuid)
        if wanted.get('hostname') and most > 1:
            hostname = f'{hostname}-{index + 1}'
        row = {
            'uuid': uuid, 'project_id': context.project_id, 'user_id': context.user_id, 'vm_state': states.BUILDING,
            'task_state': 'scheduling', 'power_state': 0, 'progress': 0, 'host': None, 'node': None, 'launched_on': None,
            'zone': None,
            'pinned_zone': None, 'flavor_id': flavor['id'], 'vcpus': flavor['vcpus'], 'ram': flavor['ram'], 'image_ref': None,
            'image': None, 'key_name': None, 'locked_by': None, 'locked_reason': None, 'config_drive': False, 'user_data': None,
            'root_device': '/dev/vda', 'access_ip_v4': None, 'access_ip_v6': None, 'description': None,
            'disk_config': 'MANUAL', 'metadata': {}, 'tags': [], 'networks': [], 'addresses': '', 'security_groups': [],
            'volumes': [],
            'fault': None, 'created_at': now, 'updated_at': now, 'launched_at': None, 'terminated_at': None, 'deleted_at': None,
            'deleted': False, **wanted, 'name': name, 'hostname': hostname, 'launch_index': index, 'reservation_id': together,
            'group_uuid': group and group['uuid']}
        row['volumes'] = [{**volume, 'bdm': db.new_id()} for volume in row['volumes']]
        store.insert(connection, row, spec)
        record.begin(connection, uuid, 'create', context, event='compute__do_build_and_run_instance')
        saga.start(connection, boot.kind_for(row), uuid, {'until': time.time() + GRACE} if row['volumes'] else {}, context)
        rows.append(row)
    return rows


def _join_group(connection, conf, context, uuid, count):
    group = db.one(connection, sa.select(groups).where(groups.c.uuid == uuid))
    if group is None or not (group['project_id'] == context.project_id or context.is_admin):
        raise errors.BadRequest(f'Instance group {uuid} could not be found.')
    limit = quota.get(connection, context.project_id, {
        'server_group_members': options.quotas(conf)['server_group_members']}, 'default')['server_group_members']
    members = connection.scalar(sa.select(sa.func.count()).select_from(servers).where(
        servers.c.group_uuid == uuid, servers.c.deleted.is_(False)))
    if 0 <= limit < members + count:
        raise errors.QuotaExceeded('Quota exceeded, too many servers in group')
    return group
