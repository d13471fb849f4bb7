"""The volumes of servers: asked of the block storage service, and remembered with what guest and API need to know of them.

An entry of ``servers.volumes`` is a dictionary: ``id`` (of the volume; None until it was made), ``bdm`` (id of the entry),
``device``, ``boot_index``, ``size`` (GiB), ``bus``, ``device_type``, ``tag``, ``multiattach``, ``delete_on_termination``,
``attachments`` (``{host: {'id', 'connection'}}``; host '' for one that only reserves the volume), ``pending`` (not yet, or no
longer, to be plugged into the guest), ``leaving`` (while it is being detached: ``asked`` until block storage has been ``told``, or
has ``refused``), ``swap`` (while it is being replaced: ``sagas.swap``), and for a volume that is made for the server ``make`` (the
body that asks for it) and ``error`` (why it could not be made).

Block storage answers an attachment's connection to services alone. It is kept here as long as the attachment lives.
"""
import logging

import sqlalchemy as sa

from kodiak.common import errors, saga
from kodiak.compute import store
from kodiak.compute.models import hosts

LOG = logging.getLogger(__name__)
VERSION = {'OpenStack-API-Version': 'volume 3.71'}
#: Marks, in the metadata of a volume that was made for a server, which server that is.
MARK = 'kodiak_server'


class Block:
    """Requests to the block storage service.

    :param clients: :class:`kodiak.common.client.Clients`. :param context: whose token is sent; the service's own if None.
    """

    def __init__(self, clients, context=None):
        self.client, self.context = clients.volume, context
        self.root = f'/v3/{context.project_id if context is not None else clients.project_id()}'

    def get(self, path, **params):
        """GET; the decoded body."""
        return self.client.get(self.root + path, context=self.context, params=params or None, headers=VERSION)

    def post(self, path, body, headers=VERSION):
        """POST; the decoded body."""
        return self.client.post(self.root + path, body, context=self.context, headers=headers)

    def put(self, path, body):
        """PUT; the decoded body."""
        return self.client.put(self.root + path, body, context=self.context, headers=VERSION)

    def delete(self, path):
        """DELETE; what is not there counts as deleted."""
        self.client.delete(self.root + path, context=self.context, headers=VERSION)

    def volume(self, volume_id):
        """A volume. :raises errors.NotFound:"""
        return self.get(f'/volumes/{volume_id}')['volume']

    def action(self, volume_id, name, **args):
        """An action of a volume."""
        return self.post(f'/volumes/{volume_id}/action', {name: args})

    def attachments(self, server):
        """All attachments to a server, whoever made them."""
        return self._all('attachments', instance_id=server)

    def _all(self, what, **params):
        try:
            return self.get(f'/{what}/detail', all_tenants='1', **params)[what]
        except errors.Unavailable as error:
            if getattr(error, 'final', False):
                return []       # a cloud without block storage has none, and nothing to clean up
            raise

    def reserve(self, volume_id, server):
        """Reserve a volume for a server; the id of the attachment."""
        return self.post('/attachments', {'attachment': {'volume_uuid': volume_id, 'instance_uuid': server}})['attachment']['id']

    def connect(self, attachment_id, connector, device):
        """Have a volume offered to a host; its connection as ``agent.state.Volume`` has it."""
        found = self.put(f'/attachments/{attachment_id}', {'attachment': {'connector': {**connector, 'mountpoint': device}}})
        return connection_of(found['attachment'].get('connection_info') or {})

    def complete(self, attachment_id):
        """Say that an attachment is in use."""
        self.post(f'/attachments/{attachment_id}/action', {'os-complete': {}})

    def detach(self, attachment_id):
        """End an attachment; one that is gone has ended."""
        self.delete(f'/attachments/{attachment_id}')

    def marked(self, server):
        """The volumes that were made for a server."""
        found = self._all('volumes', metadata=f"{{'{MARK}': '{server}'}}")
        return [volume for volume in found if (volume.get('metadata') or {}).get(MARK) == server]


def connection_of(found):
    """``{'driver_volume_type', 'data'}`` of a connection, whichever of its two shapes it came in."""
    if 'data' in found:
        return {'driver_volume_type': found.get('driver_volume_type'), 'data': found['data']}
    return {'driver_volume_type': found.get('driver_volume_type'),
            'data': {name: value for name, value in found.items() if name != 'driver_volume_type'}}


def connector(connection, host):
    """What a host tells block storage of itself.

    :raises errors.Conflict: nothing is known of the host.
    """
    found = connection.scalar(sa.select(hosts.c.resources).where(hosts.c.host == host))
    if found is None:
        raise errors.Conflict(f'Host {host} has not reported what it offers.')
    told = found.get('connector') or {}
    return {'host': host, 'ip': found.get('host_ip') or '127.0.0.1', 'multipath': False, 'os_type': 'linux',
            'platform': 'x86_64', 'do_local_attach': False, **told}


def for_host(entries, host):
    """``agent.state.Volume`` dictionaries of what a guest on a host should have."""
    found = []
    for entry in entries:
        held = entry['attachments'].get(host)
        if entry.get('pending') or not held or not held.get('connection'):
            continue
        told = {**{name: entry.get(name) for name in ('id', 'device', 'boot_index', 'size', 'bus', 'tag')},
                'multiattach': bool(entry.get('multiattach')), 'device_type': entry.get('device_type') or 'disk',
                'attachment_id': held['id'], 'connection': held['connection'],
                'read_only': held['connection']['data'].get('access_mode') == 'ro'}
        swap = entry.get('swap') or {}
        if swap.get('to') == 'old':
            told['replaces'] = swap['id']
        elif swap.get('to') == 'new':
            told.update(id=swap['id'], size=swap['size'], attachment_id=swap['attachment'], connection=swap['connection'],
                        replaces=entry['id'])
        found.append(told)
    return found


def changed(entries, volume_id, **changes):
    """``entries`` with changes of one."""
    return [{**entry, **changes} if entry['id'] == volume_id else entry for entry in entries]


def without(entries, volume_id):
    """``entries`` but one."""
    return [entry for entry in entries if entry['id'] != volume_id]


def find(row, volume_id):
    """The entry of a volume, or None."""
    return next((entry for entry in row['volumes'] if entry['id'] == volume_id), None)


def is_root(entry):
    """True for the volume that a server boots from."""
    return entry.get('boot_index') == 0


def check_free(volume):
    """``BadRequest`` where a volume cannot be attached now, whoever asks."""
    if volume['status'] != 'available' and not (volume.get('multiattach') and volume['status'] == 'in-use'):
        raise errors.BadRequest(f"Invalid volume: Volume {volume['id']} status must be 'available'"
                                f"{' or in-use' if volume.get('multiattach') else ''}. Currently in '{volume['status']}' status.")


def made_for(block, row):
    """The ids of the volumes that are to be deleted with a server."""
    doomed = {entry['id'] for entry in row['volumes'] if entry['delete_on_termination'] and entry['id']}
    if any(entry['id'] is None for entry in row['volumes']):
        # Whoever made them was cut off before it could say which they are.
        known = {entry['id'] for entry in row['volumes']}
        doomed |= {volume['id'] for volume in block.marked(row['uuid']) if volume['id'] not in known}
    return sorted(doomed)


def remove(block, volume_id):
    """Delete a volume; one that cannot be deleted stays, and stays its owner's. False: not yet, it is still being detached."""
    try:
        volume = block.volume(volume_id)
    except errors.NotFound:
        return True
    if volume['status'] == 'deleting':
        return True
    if not volume.get('attachments') and volume['status'] in ('in-use', 'reserved', 'attaching', 'detaching', 'creating',
                                                              'downloading'):
        return False
    try:
        block.delete(f'/volumes/{volume_id}')
    except (errors.BadRequest, errors.Conflict) as error:
        LOG.warning('Volume %s is kept, although it was to be deleted with its server: %s', volume_id, error)
    return True


def make(app, context, rows):
    """Make the volumes that new servers were asked for with, in the name of their owner, and write which they are.

    A failure is written too: the saga that boots the server reads it.
    """
    block = Block(app.clients, context)
    for row in rows:
        entries = []
        for entry in row['volumes']:
            if entry.get('make') and entry['id'] is None and not any(made.get('error') for made in entries):
                try:
                    body = {**entry['make'], 'metadata': {MARK: row['uuid']}}
                    entry = {**entry, 'id': block.post('/volumes', {'volume': body})['volume']['id']}
                except errors.Error as error:
                    entry = {**entry, 'error': error.message}
            entries.append(entry)
        app.db.transact(_made, row['uuid'], entries)


def _made(connection, uuid, entries):
    row = store.lock(connection, uuid)
    if row is None or row['deleted'] or not row['volumes']:
        return
    found = {entry['bdm']: entry for entry in entries}
    store.save(connection, row, volumes=[
        {**entry, **{name: found[entry['bdm']].get(name) for name in ('id', 'error')}} if entry['id'] is None else entry
        for entry in row['volumes'] if entry['bdm'] in found])
    saga.nudge(connection, uuid)
