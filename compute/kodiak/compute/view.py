"""What the API shows of a server, rendered once a change instead of once a look.

A server's ``doc`` is its representation cut into pieces, because some fields belong to some microversions or callers
only. Pieces are separated by ``\\x02``; where the URL of the API belongs stands ``\\x01`` (its root) or ``\\x03`` (with the
version). JSON text never holds these characters, so that putting a listing together is splitting and joining.
"""
import hashlib

import orjson

ROOT, CUT, VERSIONED = '\x01', '\x02', '\x03'
# Placeholders while rendering: orjson escapes control characters.
_ROOT, _VERSIONED = '{$root$}', '{$versioned$}'

#: The pieces in their order; the numbers below are their indexes.
(COMMON, FLAVOR_OLD, FLAVOR, ADMIN, ADMIN_2_3, HOSTNAME, VOLUMES_OLD, VOLUMES, LOCKED, DESCRIPTION, TAGS, LOCKED_REASON, PINNED,
 FAULT, FAULT_DETAILS) = range(15)

PROGRESS = {'ACTIVE', 'BUILD', 'REBUILD', 'RESIZE', 'VERIFY_RESIZE', 'REVERT_RESIZE', 'MIGRATING', 'PASSWORD'}


def time(value):
    """A timestamp as the API has it, or None."""
    return None if value is None else value.strftime('%Y-%m-%dT%H:%M:%SZ')


def micro_time(value):
    """A timestamp with microseconds and no zone, as some of the API's older fields have it."""
    return None if value is None else value.strftime('%Y-%m-%dT%H:%M:%S.%f')


def instance_name(row):
    """Its name in the hypervisor."""
    return f'instance-{row["id"]:08x}'


def host_id(row):
    """The host as users see it: the same for all servers of a project on it, and telling nothing else."""
    if not row['host']:
        return ''
    return hashlib.sha224((row['project_id'] + row['host']).encode()).hexdigest()


def addresses(networks, macs=True):
    """The addresses of a server by the names of its networks."""
    found = {}
    for port in networks:
        listed = found.setdefault(port['network_name'], [])
        for fixed in port['fixed_ips']:
            entry = {'version': fixed['version'], 'addr': fixed['address']}
            if macs:
                entry.update({'OS-EXT-IPS:type': 'fixed', 'OS-EXT-IPS-MAC:mac_addr': port['mac']})
            listed.append(entry)
            for floating in port.get('floating', {}).get(fixed['address'], ()):
                entry = {'version': 4, 'addr': floating}
                if macs:
                    entry.update({'OS-EXT-IPS:type': 'floating', 'OS-EXT-IPS-MAC:mac_addr': port['mac']})
                listed.append(entry)
    return {name: listed for name, listed in found.items() if listed}


def flavor_2_47(flavor):
    """The flavor as a server embeds it since 2.47."""
    return {'vcpus': flavor['vcpus'], 'ram': flavor['ram'], 'disk': flavor['root'], 'ephemeral': flavor['ephemeral'],
            'swap': flavor['swap'], 'original_name': flavor['name'], 'extra_specs': flavor['extra_specs']}


def render(row):
    """The ``doc`` of a server's row (a dictionary with all its columns)."""
    uuid, ref, flavor = row['uuid'], row['image_ref'], row['flavor']
    common = {
        'id': uuid, 'name': row['name'], 'status': row['status'], 'tenant_id': row['project_id'], 'user_id': row['user_id'],
        'metadata': row['metadata'], 'hostId': host_id(row),
        'image': {'id': ref, 'links': [{'rel': 'bookmark', 'href': f'{_ROOT}/images/{ref}'}]} if ref else '',
        'created': time(row['created_at']), 'updated': time(row['updated_at']),
        'addresses': addresses(row['networks']), 'accessIPv4': row['access_ip_v4'] or '', 'accessIPv6': row['access_ip_v6'] or '',
        'links': [{'rel': 'self', 'href': f'{_VERSIONED}/servers/{uuid}'}, {'rel': 'bookmark', 'href': f'{_ROOT}/servers/{uuid}'}],
        'OS-DCF:diskConfig': row['disk_config'], 'OS-EXT-AZ:availability_zone': row['zone'] or '',
        'config_drive': 'True' if row['config_drive'] else '', 'key_name': row['key_name'],
        'OS-SRV-USG:launched_at': micro_time(row['launched_at']), 'OS-SRV-USG:terminated_at': micro_time(row['terminated_at']),
        'OS-EXT-STS:task_state': row['task_state'], 'OS-EXT-STS:vm_state': row['vm_state'],
        'OS-EXT-STS:power_state': row['power_state'],
    }
    if row['security_groups']:
        common['security_groups'] = [{'name': name} for name in row['security_groups']]
    if row['status'] in PROGRESS:
        common['progress'] = row['progress']
    attached = [volume for volume in row['volumes'] if volume['id']]
    fault = details = {}
    if row['fault'] and row['status'] in ('ERROR', 'DELETED'):
        brief = {name: row['fault'].get(name) for name in ('code', 'created', 'message')}
        fault, details = {'fault': brief}, {'fault': {**brief, 'details': row['fault'].get('details') or ''}}
    pieces = [
        common,
        {'flavor': {'id': row['flavor_id'], 'links': [{'rel': 'bookmark', 'href': f'{_ROOT}/flavors/{row["flavor_id"]}'}]}},
        {'flavor': flavor_2_47(flavor)},
        {'OS-EXT-SRV-ATTR:host': row['host'], 'OS-EXT-SRV-ATTR:hypervisor_hostname': row['node'],
         'OS-EXT-SRV-ATTR:instance_name': instance_name(row)},
        {'OS-EXT-SRV-ATTR:reservation_id': row['reservation_id'], 'OS-EXT-SRV-ATTR:launch_index': row['launch_index'],
         'OS-EXT-SRV-ATTR:kernel_id': '', 'OS-EXT-SRV-ATTR:ramdisk_id': '',
         'OS-EXT-SRV-ATTR:root_device_name': row['root_device']},
        {'OS-EXT-SRV-ATTR:hostname': row['hostname']},
        {'os-extended-volumes:volumes_attached': [{'id': volume['id']} for volume in attached]},
        {'os-extended-volumes:volumes_attached': [
            {'id': volume['id'], 'delete_on_termination': bool(volume.get('delete_on_termination'))} for volume in attached]},
        {'locked': row['locked_by'] is not None},
        {'description': row['description']},
        {'tags': row['tags']},
        {'locked_reason': row['locked_reason']},
        {'pinned_availability_zone': row['pinned_zone']},
        fault, details,
    ]
    # Each piece but the first begins with its comma; empty ones vanish.
    text = [orjson.dumps(piece).decode()[1:-1] for piece in pieces]
    text = [text[0], *(',' + piece if piece else '' for piece in text[1:])]
    return CUT.join(text).replace(_ROOT, ROOT).replace(_VERSIONED, VERSIONED)


def chosen(version, admin, hostnames):
    """The numbers of the pieces that a caller is shown.

    :param version: the microversion. :param admin: may see what OS-EXT-SRV-ATTR tells of hosts.
    :param hostnames: may see the host names of guests (everybody, since 2.90).
    """
    pieces = [COMMON, FLAVOR if version >= (2, 47) else FLAVOR_OLD, VOLUMES if version >= (2, 3) else VOLUMES_OLD]
    if admin:
        pieces.append(ADMIN)
        if version >= (2, 3):
            pieces.append(ADMIN_2_3)
    if hostnames or (admin and version >= (2, 3)):
        pieces.append(HOSTNAME)
    for since, piece in (((2, 9), LOCKED), ((2, 19), DESCRIPTION), ((2, 26), TAGS), ((2, 73), LOCKED_REASON), ((2, 96), PINNED)):
        if version >= since:
            pieces.append(piece)
    pieces.append(FAULT_DETAILS if admin else FAULT)
    return tuple(pieces)


def assemble(doc, pieces, more=''):
    """The JSON text of one server; ``more`` is further text (``,"name":value``). Its URLs are still to be filled in."""
    parts = doc.split(CUT)
    return '{' + ''.join([parts[number] for number in pieces]) + more + '}'


def fill(text, root, prefix):
    """Put the API's URL where it belongs."""
    return text.replace(ROOT, root).replace(VERSIONED, root + prefix)


__all__ = ['addresses', 'assemble', 'chosen', 'fill', 'flavor_2_47', 'host_id', 'instance_name', 'micro_time', 'render',
           'time']
