"""POST /servers."""
import contextlib
import ipaddress
import random
import re
import string

import sqlalchemy as sa

from kodiak.common import api, db, errors, policy
from kodiak.common.api import schema
from kodiak.compute import birth, keys, mapping, volumes
from kodiak.compute.api import common
from kodiak.compute.limits import of_project
from kodiak.compute.models import hosts, keypairs

routes = api.Routes('servers')
BLANK_OR_IP = {'type': 'string'}
HINT_UUIDS = {'type': ['string', 'array'], 'items': schema.STRING}
HINTS = schema.obj({
    'group': schema.UUID, 'different_host': HINT_UUIDS, 'same_host': HINT_UUIDS, 'query': {}, 'target_cell': schema.STRING,
    'different_cell': HINT_UUIDS, 'build_near_host_ip': schema.STRING, 'cidr': {'type': 'string', 'pattern': r'^/[0-9a-f.:]+$'}},
                   extra=True)
NETWORK = schema.obj({'uuid': schema.nullable(schema.UUID), 'port': schema.nullable(schema.UUID),
                      'fixed_ip': schema.nullable(schema.STRING),
                      'tag': {'type': 'string', 'minLength': 1, 'maxLength': 60, 'pattern': '^[^,/]*$'}})
DEVICE = schema.obj({
    'boot_index': {'type': ['integer', 'string', 'null'], 'pattern': '^-?[0-9]+$'}, 'destination_type': {'type': 'string',
                                                                                                         'enum': ['local',
                                                                                                                  'volume']},
    'source_type': {'type': 'string', 'enum': ['volume', 'image', 'snapshot', 'blank']}, 'uuid': {'type': ['string', 'null']},
    'volume_size': {'type': ['integer', 'string'], 'pattern': '^[0-9]+$'}, 'device_name': {'type': ['string', 'null']},
    'guest_format': {'type': ['string', 'null'], 'maxLength': 255},
    'delete_on_termination': common.BOOL, 'disk_bus': schema.STRING, 'device_type': schema.STRING, 'no_device': {},
    'tag': {'type': 'string', 'minLength': 1, 'maxLength': 60, 'pattern': '^[^,/]*$'}, 'volume_type': {'type': ['string', 'null']},
    'virtual_name': schema.STRING, 'volume_id': {'type': ['string', 'null']}, 'snapshot_id': {'type': ['string', 'null']},
    'image_id': {}})
PERSONALITY = schema.array(schema.obj({'path': schema.STRING, 'contents': schema.STRING}, ['path', 'contents']))
SERVER = schema.obj({
    'name': {'type': 'string', 'minLength': 1, 'maxLength': 255}, 'flavorRef': {'type': ['string', 'integer'], 'minLength': 1},
    'imageRef': {'type': 'string'}, 'adminPass': schema.STRING, 'metadata': common.METADATA,
    'networks': {'anyOf': [schema.array(NETWORK), {'type': 'string', 'enum': ['auto', 'none']}]},
    'OS-DCF:diskConfig': {'type': 'string', 'enum': ['AUTO', 'MANUAL']}, 'accessIPv4': BLANK_OR_IP, 'accessIPv6': BLANK_OR_IP,
    'personality': PERSONALITY, 'availability_zone': schema.NAME, 'config_drive': common.BOOL,
    'key_name': schema.nullable(schema.NAME),
    'min_count': common.COUNT, 'max_count': common.COUNT, 'return_reservation_id': common.BOOL,
    'security_groups': schema.array(schema.obj({'name': schema.NAME}, extra=True)),
    'user_data': {'type': ['string', 'null'], 'maxLength': 65535},
    'block_device_mapping': schema.array(DEVICE), 'block_device_mapping_v2': schema.array(DEVICE),
    'description': {'type': ['string', 'null'], 'maxLength': 255},
    'tags': {'type': 'array', 'maxItems': 50, 'items': {'type': 'string', 'minLength': 1, 'maxLength': 60, 'pattern': '^[^,/]*$'}},
    'trusted_image_certificates': {'type': ['array', 'null']}, 'host': schema.NAME, 'hypervisor_hostname': schema.NAME,
    'hostname': {'type': 'string', 'minLength': 2, 'maxLength': 255, 'pattern': '^[a-zA-Z0-9-._]*$'},
    'os:scheduler_hints': HINTS, 'OS-SCH-HNT:scheduler_hints': HINTS}, ['name', 'flavorRef'])
BODY = schema.obj({'server': SERVER, 'os:scheduler_hints': HINTS, 'OS-SCH-HNT:scheduler_hints': HINTS}, ['server'])
SINCE = {'description': (2, 19), 'tags': (2, 52), 'trusted_image_certificates': (2, 63), 'host': (2, 74),
         'hypervisor_hostname': (2, 74),
         'hostname': (2, 90)}
UNTIL = {'personality': (2, 56)}


def password():
    """A password for the administrator of a guest."""
    return ''.join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=12))


def _count(sent):
    least = schema.integer(sent.get('min_count', 1), 'min_count', 1)
    most = schema.integer(sent.get('max_count', least), 'max_count', 1)
    if least > most:
        raise errors.BadRequest('min_count must be <= max_count')
    return least, most


def address(text, field, version):
    """An access address or None; ``BadRequest`` names the field."""
    if not text:
        return None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        found = None
    if found is None or found.version != version:
        raise errors.BadRequest(f'Invalid input for field/attribute {field}. Value: {text[:80]}. It is no IPv{version} address.')
    return str(found)


def check_hostname(req, name):
    """``BadRequest`` for what is no host name; since 2.94 it may have a domain."""
    most = 255 if req.at_least(2, 94) else 63
    if len(name) > most or not re.fullmatch(r'[a-zA-Z0-9]([a-zA-Z0-9-._]*[a-zA-Z0-9])?', name):
        raise errors.BadRequest(f'Invalid input for field/attribute hostname. Value: {name[:80]}. It must have up to {most} '
                                'letters, digits, dashes and dots.')


def files(req, sent):
    """Injected files, checked against the quota."""
    if not sent:
        return []
    with req.db.read() as connection:
        limits = of_project(connection, req.app.conf, req.ctx.project_id)
    found = []
    if 0 <= limits['injected_files'] < len(sent):
        raise errors.QuotaExceeded('Quota exceeded, too many injected files.')
    for entry in sent:
        if len(entry['path']) > limits['injected_file_path_bytes'] >= 0:
            raise errors.QuotaExceeded('Personality file path too long')
        contents = keys.decoded(entry['contents'], f'personality: {entry["path"][:80]}')
        if len(contents) > limits['injected_file_content_bytes'] >= 0:
            raise errors.QuotaExceeded('Personality file content too long')
        found.append({'path': entry['path'], 'contents': entry['contents']})
    return found


def check_metadata(req, metadata, connection=None):
    """``QuotaExceeded`` for more items than a server may have. :param connection: of the caller's transaction, if it has one."""
    if not metadata:
        return metadata
    with contextlib.nullcontext(connection) if connection is not None else req.db.read() as reader:
        limit = of_project(reader, req.app.conf, req.ctx.project_id)['metadata_items']
    if 0 <= limit < len(metadata):
        raise errors.QuotaExceeded(f'Quota exceeded, too many metadata items: at most {limit} are allowed.')
    return metadata


def _networks(req, sent):
    asked = sent.get('networks')
    if isinstance(asked, str) and not req.at_least(2, 37):
        raise errors.BadRequest(f"Invalid input for field/attribute networks. Value: {asked}. '{asked}' is not of type 'array'")
    if asked is None and req.at_least(2, 37):
        raise errors.BadRequest("Invalid input for field/attribute server. 'networks' is a required property")
    if not isinstance(asked, list):
        return asked
    for entry in asked:
        if 'tag' in entry and not (req.version == (2, 32) or req.at_least(2, 42)):
            raise errors.BadRequest("Additional properties are not allowed ('tag' was unexpected)")
        if not entry.get('uuid') and not entry.get('port'):
            raise errors.BadRequest('Bad networks format: network uuid is not in proper format (None)')
        if entry.get('fixed_ip'):
            try:
                ipaddress.ip_address(entry['fixed_ip'])
            except ValueError:
                raise errors.BadRequest(f'Invalid fixed IP address ({entry["fixed_ip"]})') from None
    seen = [entry['uuid'] for entry in asked if entry.get('uuid') and not entry.get('port')]
    if len(seen) != len(set(seen)) and req.api.prefix == '/v2':
        raise errors.BadRequest('Duplicate networks are not allowed')
    return asked or None


def _disks(req, sent, flavor, count):
    """What a server is made with (:class:`kodiak.compute.mapping.Disks`)."""
    image_id = sent.get('imageRef') or None
    if image_id and not common.is_uuid(image_id.rstrip('/').split('/')[-1]):
        raise errors.BadRequest('Invalid imageRef provided.')
    image_id = image_id and image_id.rstrip('/').split('/')[-1]
    first, second = sent.get('block_device_mapping'), sent.get('block_device_mapping_v2')
    if first and second:
        raise errors.BadRequest('Using different block_device_mapping syntaxes is not allowed in the same request.')
    if not image_id and not first and not second:
        raise errors.BadRequest('Invalid imageRef provided.')
    for device in second or ():
        if 'tag' in device and not (req.version == (2, 32) or req.at_least(2, 42)):
            raise errors.BadRequest("Additional properties are not allowed ('tag' was unexpected)")
        if 'volume_type' in device and not req.at_least(2, 67):
            raise errors.BadRequest("Additional properties are not allowed ('volume_type' was unexpected)")
    disks = mapping.Reader(req.app.clients, req.ctx, flavor, count).read(
        image_id, second or mapping.from_v1(first or [], bool(image_id)))
    if any(entry['multiattach'] for entry in disks.entries) and not req.at_least(2, 60):
        raise errors.BadRequest('Multiattach volumes are only supported starting with compute API version 2.60.')
    return disks


def _where(req, connection, sent):
    """``(pinned zone, forced host, forced node)``."""
    zone, host, node = sent.get('availability_zone'), sent.get('host'), sent.get('hypervisor_hostname')
    if zone and ':' in zone:
        parts = zone.split(':')
        if len(parts) > 3:
            raise errors.BadRequest('Unable to parse availability_zone')
        zone, host, node = (parts[0] or None), (parts[1] or None), (parts[2] or None if len(parts) == 3 else None)
        req.authorize(rule='os_compute_api:servers:create:forced_host')
    elif host or node:
        if zone:
            raise errors.BadRequest('An availability zone and a host cannot be asked for together.')
        req.authorize(rule='compute:servers:create:requested_destination')
        if connection.scalar(sa.select(hosts.c.id).where(*(
                condition for name, condition in ((host, hosts.c.host == host), (node, hosts.c.node == node)) if name))) is None:
            raise errors.BadRequest(f'Compute host {host or node} could not be found.')
    if zone and zone not in known_zones(req, connection):
        raise errors.BadRequest('The requested availability zone is not available')
    return zone, host, node


def known_zones(req, connection):
    """The names of all availability zones."""
    from kodiak.compute.api import zones
    return set(zones.names(connection, req.app.conf))


def _key(connection, sent, user_id):
    if not sent.get('key_name'):
        return {'key_name': None}, {}
    row = db.one(connection, sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == sent['key_name']))
    if row is None:
        raise errors.BadRequest('Invalid key_name provided.')
    return {'key_name': row['name']}, {'public_key': row['public_key'], 'key_type': row['type']}


EXTRA_RULES = [
    ('os_compute_api:servers:create:forced_host', policy.ADMIN, 'Create a server on a host of choice by its availability zone'),
    ('compute:servers:create:requested_destination', policy.ADMIN, 'Create a server on a host of choice'),
    ('os_compute_api:servers:create:attach_network', policy.MEMBER, 'Create a server with networks'),
]


@routes.post('/servers', rule='os_compute_api:servers:create', default=policy.MEMBER, body=BODY, status=202,
             response=schema.obj({'server': schema.obj({'id': schema.STRING, 'links': common.LINKS}, ['id', 'links'], extra=True),
                                  'reservation_id': schema.STRING}), summary='Create servers')
def create(req):
    sent = req.body['server']
    if req.ctx.project_id is None:
        raise errors.Forbidden('Servers belong to projects: this needs a token of one.')
    common.only(req, sent, SINCE, UNTIL)
    hints = {}
    for place in (sent, req.body):
        for name in ('os:scheduler_hints', 'OS-SCH-HNT:scheduler_hints'):
            hints.update(place.get(name) or {})
    name = common.text(sent['name'].strip() if req.api.prefix == '/v2' else sent['name'], 'name')
    least, most = _count(sent)
    user_data = sent.get('user_data') or None
    if user_data:
        keys.decoded(user_data.replace('\n', '').replace('\r', ''), 'user_data')
    if sent.get('trusted_image_certificates'):
        raise errors.BadRequest('trusted_image_certificates are not supported here.')
    if hints.get('cidr') or hints.get('build_near_host_ip'):
        address(hints.get('build_near_host_ip'), 'build_near_host_ip', 4)
    if 'hostname' in sent:
        check_hostname(req, sent['hostname'])
        if most > 1 and req.at_least(2, 94) and '.' in sent['hostname']:
            raise errors.BadRequest('A fully qualified host name cannot be given to several servers.')
    wanted = {
        'name': name, 'description': sent.get('description') or (None if req.at_least(2, 19) else name),
        'metadata': check_metadata(req, sent.get('metadata') or {}), 'tags': list(dict.fromkeys(sent.get('tags') or [])),
        'config_drive': sent.get('config_drive') in common.TRUE, 'disk_config': sent.get('OS-DCF:diskConfig', 'MANUAL'),
        'access_ip_v4': address(sent.get('accessIPv4'), 'accessIPv4', 4), 'access_ip_v6': address(sent.get('accessIPv6'),
                                                                                                  'accessIPv6', 6),
        'user_data': user_data, 'hostname': sent.get('hostname'), 'group_uuid': hints.get('group')}
    admin_password = sent.get('adminPass') or password()
    spec = {'hints': hints, 'files': files(req, sent.get('personality') or []), 'admin_password': admin_password}
    with req.db.read() as connection:
        try:
            flavor = common.embedded(common.find_flavor(connection, str(sent['flavorRef']).rstrip('/').split('/')[-1], req.ctx))
        except errors.NotFound as error:
            raise errors.BadRequest(error.message) from None
        zone, host, node = _where(req, connection, sent)
        columns, key = _key(connection, sent, req.ctx.user_id)
    disks = _disks(req, sent, flavor, most)
    asked = _networks(req, sent)
    groups = [entry['name'] for entry in sent.get('security_groups') or [] if 'name' in entry]
    requests, group_ids, names = birth.networks(req.app.clients, asked, req.ctx, most, groups)
    wanted.update(columns, flavor=flavor, image=disks.image, image_ref=disks.image and disks.image['id'], pinned_zone=zone,
                  security_groups=names, volumes=disks.entries, root_device=disks.root)
    spec.update(key, networks=requests, group_ids=group_ids, ephemerals=disks.ephemerals, forced_host=host, forced_node=node)
    if disks.hardware is not None:
        spec['hardware'] = disks.hardware
    rows = req.db.transact(birth.make, req.app.conf, req.ctx, wanted, spec, least, most)
    if any(entry.get('make') for entry in disks.entries):
        volumes.make(req.app, req.ctx, rows)
    if sent.get('return_reservation_id') in common.TRUE:
        return {'reservation_id': rows[0]['reservation_id']}
    first, base = rows[0], req.base_url
    url = f'{base}{req.api.prefix}/servers/{first["uuid"]}'
    req.headers.append(('Location', url))
    return {'server': {
        'id': first['uuid'], 'links': [{'rel': 'self', 'href': url}, {'rel': 'bookmark',
                                                                      'href': f'{base}/servers/{first["uuid"]}'}],
        'OS-DCF:diskConfig': first['disk_config'], 'security_groups': [{'name': group} for group in names or ['default']],
        'adminPass': admin_password}}
