"""The ports of servers: asked of the network service, and remembered with what guest and API need to know of them.

An entry of ``servers.networks`` is an ``agent.state.Port`` as a dictionary with, beside it: ``ours`` (made by compute, which
also deletes it), ``active`` (wired on the host), ``floating`` (fixed address to its floating addresses),
``security_groups`` (ids), ``pending`` (not yet, or no longer, to be plugged into the guest).
"""
import ipaddress
import logging

from kodiak.common import errors

LOG = logging.getLogger(__name__)


def allocate(network, row, requests, host, zone, groups=(), known=()):
    """Make or take the ports that were asked for and bind them to ``host``; what exists from an earlier try is used.

    :param requests: ``[{'network', 'port', 'fixed_ip', 'tag'}]``.
    :param groups: ids of security groups for the ports that are made.
    :param known: ids of ports that the server has already and that are not meant.
    :returns: entries for ``servers.networks``, in the order of the requests.
    """
    if not requests:
        return []
    owner = 'compute:' + (zone or '')
    there = network.get('/v2.0/ports', params={'device_id': row['uuid']})['ports']
    given = {request['port'] for request in requests if request.get('port')}
    spare = [port for port in there if port['id'] not in given and port['id'] not in known]
    made, new = [], set()
    for request in requests:
        if request['network'] == 'auto':
            topology = network.get(f'/v2.0/auto-allocated-topology/{row["project_id"]}')['auto_allocated_topology']
            request = {**request, 'network': topology['id']}
        if request.get('port'):
            made.append((request, False, _take(network, row, request['port'], host, owner, there)))
            continue
        port = next((port for port in spare if port['network_id'] == request['network']
                     and (not request.get('fixed_ip') or request['fixed_ip'] in _ips(port))), None)
        if port is not None:
            spare.remove(port)
            if port.get('binding:host_id') != host:
                port = bind(network, port['id'], host, owner)
        else:
            wanted = {'network_id': request['network'], 'project_id': row['project_id'], 'device_id': row['uuid'],
                      'device_owner': owner, 'admin_state_up': True, 'binding:host_id': host}
            if request.get('fixed_ip'):
                wanted['fixed_ips'] = [{'ip_address': request['fixed_ip']}]
            if groups:
                wanted['security_groups'] = list(groups)
            port = network.post('/v2.0/ports', {'port': wanted})['port']
            new.add(port['id'])
        made.append((request, True, port))
    facts = _facts(network, [port for _, _, port in made], new)
    return [entry(port, *facts, ours=ours, tag=request.get('tag')) for request, ours, port in made]


def _take(network, row, port_id, host, owner, there):
    port = next((port for port in there if port['id'] == port_id), None)
    if port is None:
        port = network.get('/v2.0/ports/' + port_id)['port']
        if port['device_id'] and port['device_id'] != row['uuid']:
            raise errors.Conflict(f'Port {port_id} is still in use.')
    if port['device_id'] == row['uuid'] and port.get('binding:host_id') == host:
        return port
    return network.put('/v2.0/ports/' + port_id, {'port': {
        'device_id': row['uuid'], 'device_owner': owner, 'binding:host_id': host}})['port']


def bind(network, port_id, host, owner=None):
    """Bind a port to a host (another one, when the server moves). Returns the port."""
    changes = {'binding:host_id': host}
    if owner:
        changes['device_owner'] = owner
    return network.put('/v2.0/ports/' + port_id, {'port': changes})['port']


def move(network, row, host):
    """Bind all ports of a server to another host (to none, if empty). Returns its entries, as they are then."""
    entries = []
    for port in row['networks']:
        found = bind(network, port['id'], host or '')
        details = found.get('binding:vif_details') or {}
        entries.append({**port, 'tap': details.get('tap_name') or port['tap'], 'mtu': details.get('mtu') or port['mtu'],
                        'active': bool(host) and found.get('status') == 'ACTIVE'})
    return entries


def look(network, row):
    """The entries of a server as the network service has them now: addresses, floating addresses, wired or not.

    Ports that the server has not been told of (by an interrupted attach) are left to those who clean up after it.
    """
    known = {port['id']: port for port in row['networks']}
    if not known:
        return []
    found = [port for port in network.get('/v2.0/ports', params={'device_id': row['uuid']})['ports'] if port['id'] in known]
    facts = _facts(network, found)
    fresh = {port['id']: entry(port, *facts, ours=known[port['id']]['ours'], tag=known[port['id']].get('tag')) for port in found}
    return [fresh[port_id] for port_id in known if port_id in fresh]


def wired(network, row):
    """The entries with ``active`` as the network service has it now."""
    found = {port['id']: port for port in network.get('/v2.0/ports', params={'device_id': row['uuid']})['ports']}
    missing = [port['id'] for port in row['networks'] if port['id'] not in found]
    if missing:
        raise errors.Conflict(f'Port {missing[0]} was deleted.')
    return [{**port, 'active': found[port['id']]['status'] == 'ACTIVE'} for port in row['networks']]


def release(network, row, given=(), only=None):
    """Delete the ports that compute made for a server and give the others back.

    :param given: ids of ports that the owner brought along. :param only: ids of the ports meant; all if None.
    """
    brought = {*given, *(port['id'] for port in row['networks'] if not port['ours'])}
    for port in network.get('/v2.0/ports', params={'device_id': row['uuid']})['ports']:
        if only is not None and port['id'] not in only:
            continue
        try:
            if port['id'] in brought:
                network.put('/v2.0/ports/' + port['id'], {'port': {
                    'device_id': '', 'device_owner': '', 'binding:host_id': ''}})
            else:
                network.delete('/v2.0/ports/' + port['id'])
        except errors.NotFound:
            continue


def _ips(port):
    return [ip['ip_address'] for ip in port['fixed_ips']]


def _facts(network, found, new=()):
    """``(networks by id, subnets by id, floating addresses by port and fixed address)`` of some ports.

    :param new: ids of ports that were made just now, which have no floating addresses.
    """
    if not found:
        return {}, {}, {}
    networks = network.get('/v2.0/networks', params={'id': sorted({port['network_id'] for port in found})})['networks']
    subnets = {ip['subnet_id'] for port in found for ip in port['fixed_ips']}
    subnets = network.get('/v2.0/subnets', params={'id': sorted(subnets)})['subnets'] if subnets else []
    floating = {}
    old = sorted(port['id'] for port in found if port['id'] not in new)
    if old:
        for ip in network.get('/v2.0/floatingips', params={'port_id': old})['floatingips']:
            floating.setdefault(ip['port_id'], {}).setdefault(ip['fixed_ip_address'], []).append(ip['floating_ip_address'])
    return {net['id']: net for net in networks}, {subnet['id']: subnet for subnet in subnets}, floating


def entry(port, networks, subnets, floating, ours, tag=None):
    """One entry of ``servers.networks`` from a port of the network service."""
    net = networks.get(port['network_id'], {})
    details = port.get('binding:vif_details') or {}
    fixed = []
    for ip in port['fixed_ips']:
        subnet = subnets.get(ip['subnet_id'], {})
        address = ip['ip_address']
        fixed.append({
            'address': address, 'version': ipaddress.ip_address(address).version, 'subnet_id': ip['subnet_id'],
            'cidr': subnet.get('cidr', ''), 'gateway': subnet.get('gateway_ip'), 'dns': subnet.get('dns_nameservers') or [],
            'routes': [{'destination': route['destination'], 'nexthop': route['nexthop']}
                       for route in subnet.get('host_routes') or []],
            'dhcp': bool(subnet.get('enable_dhcp', True))})
    return {
        'id': port['id'], 'mac': port['mac_address'], 'tap': details.get('tap_name') or 'tap' + port['id'][:11],
        'mtu': details.get('mtu') or net.get('mtu') or 1500, 'network_id': port['network_id'], 'network_name': net.get('name', ''),
        'fixed_ips': fixed, 'floating': floating.get(port['id'], {}), 'tag': tag, 'ours': ours,
        'active': port.get('status') == 'ACTIVE', 'security_groups': port.get('security_groups') or []}
