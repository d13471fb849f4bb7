"""Ports, addresses and security groups of a server."""
import ipaddress

from kodiak.common import api, errors, policy, saga
from kodiak.common.api import schema
from kodiak.compute import birth, ports, record, store
from kodiak.compute.api import common
from kodiak.compute.api.actions import PATH
from kodiak.compute.sagas import interface, refresh

routes = api.Routes('interfaces')
MEMBER, READER = policy.PROJECT_MEMBER, policy.PROJECT_READER
ATTACHMENT = schema.wrap('interfaceAttachment', {'type': 'object'})


def _view(req, port):
    found = {'port_id': port['id'], 'net_id': port['network_id'], 'mac_addr': port['mac'],
             'port_state': 'ACTIVE' if port['active'] else 'DOWN', 'fixed_ips': [
                 {'subnet_id': ip['subnet_id'], 'ip_address': ip['address']} for ip in port['fixed_ips']]}
    if req.at_least(2, 70):
        found['tag'] = port.get('tag')
    return found


@routes.get('/servers/{server_id}/os-interface', rule='os_compute_api:os-attach-interfaces:list', default=READER,
            load=common.load_server, response=schema.wrap('interfaceAttachments', schema.array({'type': 'object'})),
            summary='List the ports of a server')
def index(req, server_id):
    return {'interfaceAttachments': [_view(req, port) for port in req.target['networks']]}


def _port(row, port_id):
    port = next((port for port in row['networks'] if port['id'] == port_id), None)
    if port is None:
        raise errors.NotFound(f'Instance {row["uuid"]} does not have a port with id {port_id}')
    return port


@routes.get('/servers/{server_id}/os-interface/{port_id}', rule='os_compute_api:os-attach-interfaces:show', default=READER,
            load=common.load_server, response=ATTACHMENT, summary='Show a port of a server')
def show(req, server_id, port_id):
    return {'interfaceAttachment': _view(req, _port(req.target, port_id))}


@routes.post('/servers/{server_id}/os-interface', rule='os_compute_api:os-attach-interfaces:create', default=MEMBER,
             load=common.load_server, response=ATTACHMENT, body=schema.obj({'interfaceAttachment': schema.obj({
                 'net_id': schema.UUID, 'port_id': schema.UUID, 'fixed_ips': {
                     'type': 'array', 'minItems': 1, 'maxItems': 1, 'items': schema.obj({'ip_address': schema.STRING},
                                                                                        ['ip_address'])},
                 'tag': {'type': 'string', 'minLength': 1, 'maxLength': 60, 'pattern': '^[^,/]*$'}})}),
             summary='Attach a port to a server')
def attach(req, server_id):
    sent = req.body.get('interfaceAttachment') or {}
    common.only(req, sent, since={'tag': (2, 49)})
    common.check(req, req.target, 'attach_interface')
    if sent.get('net_id') and sent.get('port_id'):
        raise errors.BadRequest('Must not input both network_id and port_id')
    fixed = sent['fixed_ips'][0]['ip_address'] if sent.get('fixed_ips') else None
    if fixed is not None and not sent.get('net_id'):
        raise errors.BadRequest('Must input network_id when request IP address')
    if fixed is not None:
        try:
            ipaddress.ip_address(fixed)
        except ValueError:
            raise errors.BadRequest(f'Invalid fixed IP address ({fixed[:80]})') from None
    asked = [{'uuid': sent.get('net_id'), 'port': sent.get('port_id'), 'fixed_ip': fixed, 'tag': sent.get('tag')}] if sent.get(
        'net_id') or sent.get('port_id') else None
    try:
        requests, _, _ = birth.networks(req.app.clients, asked, req.ctx)
    except errors.BadRequest as error:
        if sent.get('port_id') and 'could not be found' in error.message:
            raise errors.NotFound(error.message) from None
        raise
    if requests == 'none':
        raise errors.BadRequest('There is no network to attach the server to.')
    entry = _allocate(req, requests[0])

    def write(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, 'attach_interface')
        record.begin(connection, server_id, 'attach_interface', req.ctx, event='compute_attach_interface', host=row['host'])
        store.save(connection, row, networks=[*row['networks'], entry])
        saga.start(connection, interface.ATTACH, server_id, {'port': entry['id']}, req.ctx)
    try:
        req.db.transact(write)
    except errors.Error:
        ports.release(req.app.clients.network, {**req.target, 'networks': [entry]}, only={entry['id']})
        raise
    return {'interfaceAttachment': _view(req, entry)}


def _allocate(req, request):
    row = req.target
    try:
        # What the server has stays out of sight: a second port on the same network is a new one.
        known = {port['id'] for port in row['networks']}
        return {**ports.allocate(req.app.clients.network, row, [request], row['host'], row['zone'], known=known)[0],
                'pending': True}
    except errors.Conflict as error:
        if request['fixed_ip']:
            raise errors.BadRequest(f'Fixed IP address {request["fixed_ip"]} is already in use on instance or is not free: '
                                    f'{error.message}') from None
        raise


@routes.delete('/servers/{server_id}/os-interface/{port_id}', rule='os_compute_api:os-attach-interfaces:delete', default=MEMBER,
               load=common.load_server, status=202, summary='Detach a port from a server')
def detach(req, server_id, port_id):
    def write(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, 'detach_interface')
        _port(row, port_id)
        if interface.is_busy(connection, server_id, port_id):
            return
        record.begin(connection, server_id, 'detach_interface', req.ctx, event='compute_detach_interface', host=row['host'])
        saga.start(connection, interface.DETACH, server_id, {'port': port_id}, req.ctx)
    req.db.transact(write)


# Addresses, by the actions that there were before the network service's own API (until 2.43)

def _refresh(req, server_id):
    req.db.transact(lambda connection: refresh.begin(connection, common.locked(connection, server_id), req.ctx))


@routes.post(PATH, action='addFixedIp', rule='os_compute_api:os-multinic:add', default=MEMBER, load=common.load_server, status=202,
             until='2.43', body=schema.wrap('addFixedIp', schema.obj({'networkId': {'type': ['string', 'integer'], 'minLength': 1}},
                                                                     ['networkId'])),
             summary='Give a server another address on a network')
def add_fixed_ip(req, server_id):
    net = str(req.body['addFixedIp']['networkId'])
    port = next((port for port in req.target['networks'] if port['network_id'] == net), None)
    if port is None:
        raise errors.BadRequest(f'Network not found for {net}')
    network = req.app.clients.network
    subnet = next((ip['subnet_id'] for ip in port['fixed_ips']), None)
    fixed = [{'subnet_id': ip['subnet_id'], 'ip_address': ip['address']} for ip in port['fixed_ips']]
    network.put('/v2.0/ports/' + port['id'], {'port': {'fixed_ips': [*fixed, {'subnet_id': subnet}]}})
    _refresh(req, server_id)


@routes.post(PATH, action='removeFixedIp', rule='os_compute_api:os-multinic:remove', default=MEMBER, load=common.load_server,
             status=202, until='2.43', body=schema.wrap('removeFixedIp', schema.obj({'address': schema.STRING}, ['address'])),
             summary='Take an address from a server')
def remove_fixed_ip(req, server_id):
    address = req.body['removeFixedIp']['address']
    for port in req.target['networks']:
        if any(ip['address'] == address for ip in port['fixed_ips']):
            left = [{'subnet_id': ip['subnet_id'],
                     'ip_address': ip['address']} for ip in port['fixed_ips'] if ip['address'] != address]
            req.app.clients.network.put('/v2.0/ports/' + port['id'], {'port': {'fixed_ips': left}})
            return _refresh(req, server_id)
    raise errors.BadRequest(f'Fixed IP address {address[:80]} not found for instance {server_id}.')


def _floating(req, address):
    found = req.app.clients.network.get('/v2.0/floatingips', params={'floating_ip_address': address},
                                        context=req.ctx)['floatingips']
    if not found:
        raise errors.NotFound('floating IP not found')
    return found[0]


@routes.post(PATH, action='addFloatingIp', rule='os_compute_api:os-floating-ips:add', default=MEMBER, load=common.load_server,
             status=202, until='2.43', body=schema.wrap('addFloatingIp', schema.obj({
                 'address': schema.STRING, 'fixed_address': schema.STRING}, ['address'])),
             summary='Give a server a floating address')
def add_floating_ip(req, server_id):
    sent = req.body['addFloatingIp']
    wanted = sent.get('fixed_address')
    fitting = [(port, ip) for port in req.target['networks'] for ip in port['fixed_ips']
               if ip['version'] == 4 and wanted in (None, ip['address'])]
    if not fitting:
        raise errors.BadRequest('Specified fixed address not assigned to instance' if wanted else
                                'No fixed IPs associated to instance')
    found = _floating(req, sent['address'])
    port, ip = fitting[0]
    try:
        req.app.clients.network.put('/v2.0/floatingips/' + found['id'], {'floatingip': {
            'port_id': port['id'], 'fixed_ip_address': ip['address']}}, context=req.ctx)
    except errors.Conflict as error:
        raise errors.BadRequest(error.message) from None
    _refresh(req, server_id)


@routes.post(PATH, action='removeFloatingIp', rule='os_compute_api:os-floating-ips:remove', default=MEMBER, load=common.load_server,
             status=202, until='2.43', body=schema.wrap('removeFloatingIp', schema.obj({'address': schema.STRING}, ['address'])),
             summary='Take a floating address from a server')
def remove_floating_ip(req, server_id):
    found = _floating(req, req.body['removeFloatingIp']['address'])
    if found.get('port_id') not in {port['id'] for port in req.target['networks']}:
        raise errors.Conflict(f'Floating IP {found["floating_ip_address"]} is not associated with instance {server_id}.')
    req.app.clients.network.put('/v2.0/floatingips/' + found['id'], {'floatingip': {'port_id': None}}, context=req.ctx)
    _refresh(req, server_id)


# Security groups

def _group(req, name):
    found = req.app.clients.network.get('/v2.0/security-groups', params={'project_id': req.target['project_id']},
                                        context=req.ctx)['security_groups']
    fitting = [group for group in found if group['id'] == name] or [group for group in found if group['name'] == name]
    if not fitting:
        raise errors.NotFound(f'Security group {name} not found.')
    if len(fitting) > 1:
        raise errors.Conflict(f"Multiple security groups found matching '{name}'. Use an ID to be more specific.")
    return fitting[0]


def _change_groups(req, server_id, function):
    network = req.app.clients.network
    there = network.get('/v2.0/ports', params={'device_id': server_id}, context=req.ctx)['ports']
    if not there:
        raise errors.BadRequest(f'Instance {server_id} has no port that security groups could be on.')
    for port in there:
        groups = function(port['security_groups'])
        if groups != port['security_groups']:
            network.put('/v2.0/ports/' + port['id'], {'port': {'security_groups': groups}}, context=req.ctx)


def _names(req, server_id, function):
    def write(connection):
        row = common.locked(connection, server_id)
        store.save(connection, row, security_groups=function(row['security_groups']))
        refresh.begin(connection, row, req.ctx)
    req.db.transact(write)


GROUP_BODY = schema.obj({'name': {'type': 'string', 'minLength': 1}}, ['name'])


@routes.post(PATH, action='addSecurityGroup', rule='os_compute_api:os-security-groups:add', default=MEMBER, load=common.load_server,
             status=202, body=schema.wrap('addSecurityGroup', GROUP_BODY), summary='Add a security group to a server')
def add_group(req, server_id):
    group = _group(req, common.text(req.body['addSecurityGroup']['name'], 'name'))
    _change_groups(req, server_id, lambda groups: groups if group['id'] in groups else [*groups, group['id']])
    _names(req, server_id, lambda names: names if group['name'] in names else [*names, group['name']])


@routes.post(PATH, action='removeSecurityGroup', rule='os_compute_api:os-security-groups:remove', default=MEMBER,
             load=common.load_server, status=202, body=schema.wrap('removeSecurityGroup', GROUP_BODY),
             summary='Remove a security group from a server')
def remove_group(req, server_id):
    group = _group(req, common.text(req.body['removeSecurityGroup']['name'], 'name'))
    seen = []

    def without(groups):
        seen.extend(groups)
        return [name for name in groups if name != group['id']]
    _change_groups(req, server_id, without)
    if group['id'] not in seen:
        raise errors.NotFound(f'Security group {group["name"]} is not associated with instance {server_id}.')
    _names(req, server_id, lambda names: [name for name in names if name != group['name']])


@routes.get('/servers/{server_id}/os-security-groups', rule='os_compute_api:os-security-groups:list', default=READER,
            load=common.load_server, response=schema.wrap('security_groups', schema.array({'type': 'object'})),
            summary='List the security groups of a server')
def groups_of(req, server_id):
    from kodiak.compute.api import proxies
    network = req.app.clients.network
    there = network.get('/v2.0/ports', params={'device_id': server_id}, context=req.ctx)['ports']
    wanted = list(dict.fromkeys(group for port in there for group in port['security_groups']))
    if not wanted:
        return {'security_groups': []}
    found = network.get('/v2.0/security-groups', params={'id': wanted}, context=req.ctx)['security_groups']
    names = proxies.group_names(req, found)
    return {'security_groups': [proxies.group_view(group, names) for group in found]}
