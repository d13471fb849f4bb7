"""What belongs to a server and is only data: addresses, metadata, tags."""
import re

from kodiak.common import api, errors, policy
from kodiak.common.api import schema
from kodiak.compute import store, view
from kodiak.compute.api import common
from kodiak.compute.api.create import check_metadata

routes = api.Routes('server data')
MEMBER, READER = policy.PROJECT_MEMBER, policy.PROJECT_READER


def change(req, server_id, action, function):
    """``function(connection, locked row)`` if ``action`` may be done to the server now; returns what it returns."""
    def write(connection):
        row = common.locked(connection, server_id)
        if action is not None:
            common.check(req, row, action, host=False)
        return function(connection, row)
    return req.db.transact(write)


# Addresses

@routes.get('/servers/{server_id}/ips', rule='os_compute_api:ips:index', default=READER, load=common.load_server,
            response=schema.wrap('addresses', {'type': 'object'}), summary='List the addresses of a server')
def ips(req, server_id):
    return {'addresses': view.addresses(req.target['networks'], macs=False)}


@routes.get('/servers/{server_id}/ips/{label}', rule='os_compute_api:ips:show', default=READER, load=common.load_server,
            summary='List the addresses of a server on one network')
def ips_of(req, server_id, label):
    found = view.addresses(req.target['networks'], macs=False)
    if label not in found:
        raise errors.NotFound(f'Instance {server_id} is not a member of network {label}')
    return {label: found[label]}


# Metadata

ALL = schema.wrap('metadata', common.METADATA)


@routes.get('/servers/{server_id}/metadata', rule='os_compute_api:server-metadata:index', default=READER, load=common.load_server,
            response=ALL, summary='List the metadata of a server')
def metadata(req, server_id):
    return {'metadata': req.target['metadata']}


def _write(req, server_id, function, action='update_metadata'):
    def write(connection, row):
        return store.save(connection, row, metadata=check_metadata(req, function(row['metadata']), connection))['metadata']
    return change(req, server_id, action, write)


@routes.post('/servers/{server_id}/metadata', rule='os_compute_api:server-metadata:create', default=MEMBER, load=common.load_server,
             body=ALL, response=ALL, summary='Set items of the metadata of a server')
def metadata_create(req, server_id):
    return {'metadata': _write(req, server_id, lambda old: {**old, **req.body['metadata']})}


@routes.put('/servers/{server_id}/metadata', rule='os_compute_api:server-metadata:update_all', default=MEMBER,
            load=common.load_server, body=ALL, response=ALL, summary='Replace the metadata of a server')
def metadata_replace(req, server_id):
    return {'metadata': _write(req, server_id, lambda old: req.body['metadata'])}


def _item(req, key):
    if key not in req.target['metadata']:
        raise errors.NotFound('Metadata item was not found')
    return {'meta': {key: req.target['metadata'][key]}}


@routes.get('/servers/{server_id}/metadata/{key}', rule='os_compute_api:server-metadata:show', default=READER,
            load=common.load_server, response=schema.wrap('meta', common.METADATA), summary='Show an item of the metadata')
def metadata_show(req, server_id, key):
    return _item(req, key)


@routes.put('/servers/{server_id}/metadata/{key}', rule='os_compute_api:server-metadata:update', default=MEMBER,
            load=common.load_server, body=schema.wrap('meta', {**common.METADATA, 'minProperties': 1, 'maxProperties': 1}),
            response=schema.wrap('meta', common.METADATA), summary='Set an item of the metadata')
def metadata_update(req, server_id, key):
    sent = req.body['meta']
    if key not in sent:
        raise errors.BadRequest('Request body and URI mismatch')
    _write(req, server_id, lambda old: {**old, **sent})
    return {'meta': sent}


@routes.delete('/servers/{server_id}/metadata/{key}', rule='os_compute_api:server-metadata:delete', default=MEMBER,
               load=common.load_server, summary='Remove an item of the metadata')
def metadata_delete(req, server_id, key):
    _item(req, key)
    _write(req, server_id, lambda old: {name: value for name, value in old.items() if name != key}, 'delete_metadata')


# Tags

TAG = re.compile(r'^[^,/]{1,60}$')
TAGS = schema.wrap('tags', schema.array({'type': 'string', 'minLength': 1, 'maxLength': 60, 'pattern': '^[^,/]*$'}, maxItems=50))


@routes.get('/servers/{server_id}/tags', rule='os_compute_api:os-server-tags:index', default=READER, load=common.load_server,
            since='2.26', response=TAGS, summary='List the tags of a server')
def tags(req, server_id):
    return {'tags': req.target['tags']}


@routes.get('/servers/{server_id}/tags/{tag}', rule='os_compute_api:os-server-tags:show', default=READER, load=common.load_server,
            since='2.26', status=204, summary='Check a tag of a server')
def tag_show(req, server_id, tag):
    if tag not in req.target['tags']:
        raise errors.NotFound(f"Server {server_id} has no tag '{tag}'")


@routes.put('/servers/{server_id}/tags/{tag}', rule='os_compute_api:os-server-tags:update', default=MEMBER, load=common.load_server,
            since='2.26', status=201, summary='Add a tag to a server')
def tag_add(req, server_id, tag):
    if not TAG.match(tag):
        raise errors.BadRequest(f"Invalid tag '{tag[:80]}': a tag has 1 to 60 characters, none of them a comma or a slash.")

    def write(connection, row):
        if tag in row['tags']:
            return False
        if len(row['tags']) >= 50:
            raise errors.BadRequest('The number of tags exceeded the per-server limit 50')
        store.set_tags(connection, row, [*row['tags'], tag])
        return True
    if not change(req, server_id, 'update_tags', write):
        return api.Response(status=204)
    return api.Response(status=201, headers={'Location': req.url})


@routes.put('/servers/{server_id}/tags', rule='os_compute_api:os-server-tags:update_all', default=MEMBER, load=common.load_server,
            since='2.26', body=TAGS, response=TAGS, summary='Replace the tags of a server')
def tags_replace(req, server_id):
    sent = list(dict.fromkeys(req.body['tags']))
    change(req, server_id, 'update_tags', lambda connection, row: store.set_tags(connection, row, sent))
    return {'tags': sent}


@routes.delete('/servers/{server_id}/tags/{tag}', rule='os_compute_api:os-server-tags:delete', default=MEMBER,
               load=common.load_server, since='2.26', summary='Remove a tag of a server')
def tag_delete(req, server_id, tag):
    def write(connection, row):
        if tag not in row['tags']:
            raise errors.NotFound(f"Server {server_id} has no tag '{tag}'")
        store.set_tags(connection, row, [name for name in row['tags'] if name != tag])
    change(req, server_id, 'update_tags', write)


@routes.delete('/servers/{server_id}/tags', rule='os_compute_api:os-server-tags:delete_all', default=MEMBER,
               load=common.load_server, since='2.26', summary='Remove all tags of a server')
def tags_delete(req, server_id):
    change(req, server_id, 'update_tags', lambda connection, row: store.set_tags(connection, row, []))
