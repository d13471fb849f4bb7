"""The images, networks, floating addresses and security groups of other services, as this API once had them (until 2.35, 2.38)."""
from kodiak.common import api, errors, policy
from kodiak.common.api import schema
from kodiak.compute.api import common

routes = api.Routes('proxies')
LAST = '2.35'
IMAGES = '2.38'


# Images

STATUS = {'active': 'ACTIVE', 'queued': 'SAVING', 'saving': 'SAVING', 'uploading': 'SAVING', 'importing': 'SAVING',
          'deleted': 'DELETED',
          'pending_delete': 'DELETED', 'killed': 'ERROR'}
KNOWN = {'id', 'name', 'status', 'visibility', 'protected', 'os_hidden', 'owner', 'checksum', 'os_hash_algo', 'os_hash_value',
         'size',
         'virtual_size', 'disk_format', 'container_format', 'min_disk', 'min_ram', 'created_at', 'updated_at', 'file', 'self',
         'schema',
         'tags', 'direct_url', 'locations', 'stores'}


def _image_links(req, image_id):
    base = req.base_url
    return [{'rel': 'self', 'href': f'{base}{req.api.prefix}/images/{image_id}'}, {'rel': 'bookmark',
                                                                                   'href': f'{base}/images/{image_id}'},
            {'rel': 'alternate', 'type': 'application/vnd.openstack.image', 'href': f'{base}/images/{image_id}'}]


def _metadata(image):
    return {name: value for name, value in image.items() if name not in KNOWN and isinstance(value, str)}


def _image(req, image, detailed):
    found = {'id': image['id'], 'name': image.get('name'), 'links': _image_links(req, image['id'])}
    if not detailed:
        return found
    status = STATUS.get(image['status'], 'UNKNOWN')
    metadata = _metadata(image)
    found.update({'created': image['created_at'], 'updated': image['updated_at'], 'status': status, 'progress':
                  {'ACTIVE': 100, 'SAVING': 25}.get(status, 0), 'minDisk': image.get('min_disk') or 0,
                  'minRam': image.get('min_ram') or 0,
                  'metadata': metadata, 'OS-EXT-IMG-SIZE:size': image.get('size') or 0})
    if 'auto_disk_config' in metadata:
        found['OS-DCF:diskConfig'] = 'AUTO' if metadata['auto_disk_config'].lower() == 'true' else 'MANUAL'
    if metadata.get('instance_uuid'):
        server = metadata['instance_uuid']
        found['server'] = {'id': server, 'links': [
            {'rel': 'self', 'href': f'{req.base_url}{req.api.prefix}/servers/{server}'},
            {'rel': 'bookmark', 'href': f'{req.base_url}/servers/{server}'}]}
    return found


def _images(req, detailed):
    query = req.query
    params = {name: query[name] for name in ('name', 'marker', 'limit') if name in query}
    wanted = query.get('status')
    if wanted:
        params['status'] = {'active': 'active', 'saving': 'saving', 'deleted': 'deleted', 'error': 'killed'}.get(wanted.lower(),
                                                                                                                 wanted)
    for name, filtered in (('server', 'instance_uuid'), ('type', 'image_type'), ('minRam', 'min_ram'), ('minDisk', 'min_disk')):
        if name in query:
            params[filtered] = query[name].rstrip('/').split('/')[-1]
    if 'changes-since' in query:
        params['updated_at'] = 'gte:' + query['changes-since']
    limit = schema.integer(params['limit'], 'limit', 0) if 'limit' in params else None
    if limit == 0:
        return {'images': []}
    answer = req.app.clients.image.get('/v2/images', params=params, context=req.ctx)
    found = {'images': [_image(req, image, detailed) for image in answer['images']]}
    if limit and len(answer['images']) == limit:
        found.update(common.next_link(req, 'images_links', answer['images'][-1]['id']))
    return found


def _show_image(req, image_id):
    try:
        return req.app.clients.image.get(f'/v2/images/{image_id}', context=req.ctx)
    except errors.NotFound:
        raise errors.NotFound('Image not found.') from None


@routes.get('/images', rule='os_compute_api:images', default=policy.READER, until=LAST, summary='List images')
def images(req):
    return _images(req, False)


@routes.get('/images/detail', rule='os_compute_api:images', default=policy.READER, until=LAST, summary='List images with details')
def images_detail(req):
    return _images(req, True)


@routes.get('/images/{image_id}', rule='os_compute_api:images', default=policy.READER, until=LAST, summary='Show an image')
def image(req, image_id):
    return {'image': _image(req, _show_image(req, image_id), True)}


@routes.delete('/images/{image_id}', rule='os_compute_api:images:delete', default=policy.MEMBER, until=LAST,
               summary='Delete an image')
def image_delete(req, image_id):
    try:
        req.app.clients.image.delete(f'/v2/images/{image_id}', context=req.ctx, missing_ok=False)
    except errors.NotFound:
        raise errors.NotFound('Image not found.') from None


def _patch(req, image_id, old, new):
    changes = [{'op': 'remove', 'path': '/' + name} for name in old if name not in new]
    changes += [{'op': 'replace' if name in old else 'add', 'path': '/' + name, 'value': value} for name, value in new.items()
                if old.get(name) != value]
    if changes:
        req.app.clients.image.request('PATCH', f'/v2/images/{image_id}', req.ctx, data=_json(changes), headers={
            'Content-Type': 'application/openstack-images-v2.1-json-patch'})
    return new


def _json(value):
    import orjson
    return orjson.dumps(value)


ALL = schema.wrap('metadata', common.METADATA)
ONE = schema.wrap('meta', {**common.METADATA, 'minProperties': 1, 'maxProperties': 1})
READ, WRITE = 'os_compute_api:image-metadata:read', 'os_compute_api:image-metadata:write'


@routes.get('/images/{image_id}/metadata', rule=READ, default=policy.READER, until=IMAGES, summary='List the metadata of an image')
def metadata(req, image_id):
    return {'metadata': _metadata(_show_image(req, image_id))}


@routes.post('/images/{image_id}/metadata', rule=WRITE, default=policy.MEMBER, until=IMAGES, body=ALL,
             summary='Set items of the metadata of an image')
def metadata_create(req, image_id):
    old = _metadata(_show_image(req, image_id))
    return {'metadata': _patch(req, image_id, old, {**old, **req.body['metadata']})}


@routes.put('/images/{image_id}/metadata', rule=WRITE, default=policy.MEMBER, until=IMAGES, body=ALL,
            summary='Replace the metadata of an image')
def metadata_replace(req, image_id):
    return {'metadata': _patch(req, image_id, _metadata(_show_image(req, image_id)), req.body['metadata'])}


@routes.get('/images/{image_id}/metadata/{key}', rule=READ, default=policy.READER, until=IMAGES, summary='Show an item')
def metadata_show(req, image_id, key):
    found = _metadata(_show_image(req, image_id))
    if key not in found:
        raise errors.NotFound('Metadata item was not found')
    return {'meta': {key: found[key]}}


@routes.put('/images/{image_id}/metadata/{key}', rule=WRITE, default=policy.MEMBER, until=IMAGES, body=ONE, summary='Set an item')
def metadata_update(req, image_id, key):
    if key not in req.body['meta']:
        raise errors.BadRequest('Request body and URI mismatch')
    old = _metadata(_show_image(req, image_id))
    _patch(req, image_id, old, {**old, **req.body['meta']})
    return {'meta': req.body['meta']}


@routes.delete('/images/{image_id}/metadata/{key}', rule=WRITE, default=policy.MEMBER, until=IMAGES, summary='Remove an item')
def metadata_delete(req, image_id, key):
    old = _metadata(_show_image(req, image_id))
    if key not in old:
        raise errors.NotFound('Metadata item was not found')
    _patch(req, image_id, old, {name: value for name, value in old.items() if name != key})


# Networks

EMPTY = ('bridge', 'bridge_interface', 'broadcast', 'cidr', 'cidr_v6', 'created_at', 'deleted', 'deleted_at', 'dhcp_server',
         'dhcp_start',
         'dns1', 'dns2', 'enable_dhcp', 'gateway', 'gateway_v6', 'host', 'injected', 'mtu', 'multi_host', 'netmask', 'netmask_v6',
         'priority', 'project_id', 'rxtx_base', 'share_address', 'updated_at', 'vlan', 'vpn_private_address', 'vpn_public_address',
         'vpn_public_port')


def _network(net):
    return {**dict.fromkeys(EMPTY), 'id': net['id'], 'label': net['name']}


def _nets(req):
    found = req.app.clients.network.get('/v2.0/networks', context=req.ctx)['networks']
    return [net for net in found if (net.get('project_id') or net.get('tenant_id')) == req.ctx.project_id or net.get('shared')
            or req.ctx.is_admin]


def _net(req, network_id):
    try:
        return req.app.clients.network.get(f'/v2.0/networks/{network_id}', context=req.ctx)['network']
    except errors.NotFound:
        raise errors.NotFound('Network not found') from None


@routes.get('/os-networks', rule='os_compute_api:os-networks:list', default=policy.READER, until=LAST, summary='List networks')
def networks(req):
    return {'networks': [_network(net) for net in _nets(req)]}


@routes.get('/os-networks/{network_id}', rule='os_compute_api:os-networks:show', default=policy.READER, until=LAST,
            summary='Show a network')
def network(req, network_id):
    return {'network': _network(_net(req, network_id))}


@routes.get('/os-tenant-networks', rule='os_compute_api:os-tenant-networks:list', default=policy.READER, until=LAST,
            summary='List the networks of a project')
def tenant_networks(req):
    return {'networks': [{'id': net['id'], 'label': net['name'], 'cidr': 'None'} for net in _nets(req)]}


@routes.get('/os-tenant-networks/{network_id}', rule='os_compute_api:os-tenant-networks:show', default=policy.READER, until=LAST,
            summary='Show a network of a project')
def tenant_network(req, network_id):
    net = _net(req, network_id)
    return {'network': {'id': net['id'], 'label': net['name'], 'cidr': 'None'}}


# Floating addresses

def _pools(req):
    found = req.app.clients.network.get('/v2.0/networks', params={'router:external': 'true'}, context=req.ctx)['networks']
    return {net['id']: net['name'] for net in found}


@routes.get('/os-floating-ip-pools', rule='os_compute_api:os-floating-ip-pools', default=policy.READER, until=LAST,
            summary='List the pools of floating addresses')
def pools(req):
    return {'floating_ip_pools': [{'name': name or net} for net, name in _pools(req).items()]}


def _floating(req, found, names, servers):
    return {'id': found['id'], 'ip': found['floating_ip_address'], 'pool': names.get(found['floating_network_id'])
            or found['floating_network_id'], 'fixed_ip': found.get('fixed_ip_address'),
            'instance_id': servers.get(found.get('port_id'))}


def _owners(req, found):
    wanted = [entry['port_id'] for entry in found if entry.get('port_id')]
    if not wanted:
        return {}
    there = req.app.clients.network.get('/v2.0/ports', params={'id': wanted}, context=req.ctx)['ports']
    return {port['id']: port['device_id'] for port in there if port['device_owner'].startswith('compute:')}


@routes.get('/os-floating-ips', rule='os_compute_api:os-floating-ips:list', default=policy.READER, until=LAST,
            summary='List floating addresses')
def floating_ips(req):
    found = req.app.clients.network.get('/v2.0/floatingips', params={'project_id': req.ctx.project_id},
                                        context=req.ctx)['floatingips']
    names, owners = _pools(req), _owners(req, found)
    return {'floating_ips': [_floating(req, entry, names, owners) for entry in found]}


def _one_floating(req, floating_id):
    try:
        return req.app.clients.network.get(f'/v2.0/floatingips/{floating_id}', context=req.ctx)['floatingip']
    except errors.NotFound:
        raise errors.NotFound(f'Floating IP not found for ID {floating_id}') from None


@routes.get('/os-floating-ips/{floating_id}', rule='os_compute_api:os-floating-ips:show', default=policy.READER, until=LAST,
            summary='Show a floating address')
def floating_ip(req, floating_id):
    found = _one_floating(req, floating_id)
    return {'floating_ip': _floating(req, found, _pools(req), _owners(req, [found]))}


@routes.post('/os-floating-ips', rule='os_compute_api:os-floating-ips:create', default=policy.MEMBER, until=LAST,
             body={'type': ['object', 'null'], 'properties': {'pool': {'type': ['string', 'null']}}}, optional_body=True,
             summary='Take a floating address')
def floating_ip_create(req):
    names = _pools(req)
    wanted = (req.body or {}).get('pool')
    if wanted:
        net = next((net for net, name in names.items() if wanted in (net, name)), None)
    else:
        net = next(iter(names), None)
    if net is None:
        raise errors.NotFound(f'Floating IP pool {wanted} not found.' if wanted else 'Floating IP pool not found.')
    found = req.app.clients.network.post('/v2.0/floatingips', {'floatingip': {'floating_network_id': net}},
                                         context=req.ctx)['floatingip']
    return {'floating_ip': _floating(req, found, names, {})}


@routes.delete('/os-floating-ips/{floating_id}', rule='os_compute_api:os-floating-ips:delete', default=policy.MEMBER, until=LAST,
               status=202, summary='Give a floating address back')
def floating_ip_delete(req, floating_id):
    _one_floating(req, floating_id)
    req.app.clients.network.delete(f'/v2.0/floatingips/{floating_id}', context=req.ctx)


# Security groups

def rule_view(rule, names=None):
    """A rule as this API had it."""
    ports = (rule.get('port_range_min'), rule.get('port_range_max'))
    protocol = rule.get('protocol')
    if protocol is not None and ports == (None, None):
        ports = (-1, -1) if protocol.upper() == 'ICMP' else (1, 65535)
    group = rule.get('remote_group_id')
    return {'id': rule['id'], 'parent_group_id': rule['security_group_id'], 'ip_protocol': protocol,
            'from_port': ports[0], 'to_port': ports[1],
            'ip_range': {}
            if group else {'cidr': rule.get('remote_ip_prefix') or ('::/0' if rule.get('ethertype') == 'IPv6' else '0.0.0.0/0')},
            'group': {'name': (names or {}).get(group, group),
                      'tenant_id': rule.get('project_id') or rule.get('tenant_id')} if group else {}}


def group_names(req, groups):
    """``{id: name}`` of the groups that the rules of some groups refer to."""
    names = {group['id']: group['name'] for group in groups}
    wanted = {rule.get('remote_group_id') for group in groups for rule in group.get('security_group_rules') or ()} - {None, *names}
    if wanted:
        found = req.app.clients.network.get('/v2.0/security-groups', params={'id': sorted(wanted)},
                                            context=req.ctx)['security_groups']
        names.update((group['id'], group['name']) for group in found)
    return names


def group_view(group, names=None):
    """A security group as this API had it."""
    return {'id': group['id'], 'name': group['name'], 'description': group.get('description') or '', 'tenant_id':
            group.get('project_id') or group.get('tenant_id'),
            'rules': [rule_view(rule, names) for rule in group.get('security_group_rules') or () if rule['direction'] == 'ingress']}


def _group(req, group_id):
    try:
        return req.app.clients.network.get(f'/v2.0/security-groups/{group_id}', context=req.ctx)['security_group']
    except errors.NotFound:
        raise errors.NotFound(f'Security group {group_id} not found.') from None


@routes.get('/os-security-groups', rule='os_compute_api:os-security-groups:get', default=policy.READER, until=LAST,
            summary='List security groups')
def groups(req):
    params = {} if req.ctx.is_admin and 'all_tenants' in req.query else {'project_id': req.ctx.project_id}
    found = req.app.clients.network.get('/v2.0/security-groups', params=params, context=req.ctx)['security_groups']
    names = group_names(req, found)
    return {'security_groups': [group_view(group, names) for group in sorted(found, key=lambda group: group['name'])]}


@routes.get('/os-security-groups/{group_id}', rule='os_compute_api:os-security-groups:show', default=policy.READER, until=LAST,
            summary='Show a security group')
def group(req, group_id):
    found = _group(req, group_id)
    return {'security_group': group_view(found, group_names(req, [found]))}


GROUP = schema.wrap('security_group', schema.obj({'name': schema.NAME, 'description': {'type': ['string', 'null'],
                                                                                       'maxLength': 255}},
                                                 ['name'], extra=True))


def _check_group(sent):
    common.text(sent['name'].strip(), 'name')
    return {'name': sent['name'], 'description': sent.get('description') or ''}


@routes.post('/os-security-groups', rule='os_compute_api:os-security-groups:create', default=policy.MEMBER, until=LAST, body=GROUP,
             summary='Create a security group')
def group_create(req):
    sent = _check_group(req.body['security_group'])
    found = req.app.clients.network.post('/v2.0/security-groups', {'security_group': sent}, context=req.ctx)['security_group']
    return {'security_group': group_view(found)}


@routes.put('/os-security-groups/{group_id}', rule='os_compute_api:os-security-groups:update', default=policy.MEMBER, until=LAST,
            body=GROUP, summary='Change a security group')
def group_update(req, group_id):
    _group(req, group_id)
    sent = _check_group(req.body['security_group'])
    found = req.app.clients.network.put(f'/v2.0/security-groups/{group_id}', {'security_group': sent},
                                        context=req.ctx)['security_group']
    return {'security_group': group_view(found)}


@routes.delete('/os-security-groups/{group_id}', rule='os_compute_api:os-security-groups:delete', default=policy.MEMBER, until=LAST,
               status=202, summary='Delete a security group')
def group_delete(req, group_id):
    _group(req, group_id)
    try:
        req.app.clients.network.delete(f'/v2.0/security-groups/{group_id}', context=req.ctx)
    except errors.Conflict as error:
        raise errors.BadRequest(error.message) from None


@routes.post('/os-security-group-rules', rule='os_compute_api:os-security-groups:rule:create', default=policy.MEMBER, until=LAST,
             body=schema.wrap('security_group_rule', {'type': 'object', 'required': ['parent_group_id']}),
             summary='Add a rule to a security group')
def rule_create(req):
    sent = req.body['security_group_rule']
    if not common.is_uuid(sent['parent_group_id']):
        raise errors.BadRequest('Security group id should be uuid')
    parent = _group(req, sent['parent_group_id'])
    protocol = sent.get('ip_protocol')
    if not sent.get('group_id') and not protocol:
        raise errors.BadRequest('Invalid input for field/attribute ip_protocol: it is required.')
    wanted = {'security_group_id': parent['id'], 'direction': 'ingress',
              'ethertype': 'IPv6' if ':' in (sent.get('cidr') or '') else 'IPv4',
              'protocol': protocol.lower() if protocol else None}
    if sent.get('group_id'):
        wanted['remote_group_id'] = sent['group_id']
    elif sent.get('cidr'):
        wanted['remote_ip_prefix'] = sent['cidr']
    for name, column in (('from_port', 'port_range_min'), ('to_port', 'port_range_max')):
        if sent.get(name) not in (None, ''):
            value = schema.integer(sent[name], name, -1, 65535)
            if value >= 0:
                wanted[column] = value
    try:
        made = req.app.clients.network.post('/v2.0/security-group-rules', {'security_group_rule': wanted}, context=req.ctx)
    except errors.Conflict as error:
        raise errors.BadRequest(error.message) from None
    names = {sent['group_id']: _group(req, sent['group_id'])['name']} if sent.get('group_id') else {}
    return {'security_group_rule': rule_view(made['security_group_rule'], names)}


@routes.delete('/os-security-group-rules/{rule_id}', rule='os_compute_api:os-security-groups:rule:delete', default=policy.MEMBER,
               until=LAST, status=202, summary='Remove a rule from a security group')
def rule_delete(req, rule_id):
    try:
        req.app.clients.network.delete(f'/v2.0/security-group-rules/{rule_id}', context=req.ctx, missing_ok=False)
    except errors.NotFound:
        raise errors.NotFound(f'Security group rule {rule_id} not found.') from None
