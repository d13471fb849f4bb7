"""A double of the block storage service: volumes, snapshots and the attachments API, as strict about states as the real one."""
import uuid

from kodiak.common import testing


class Block(testing.Double):
    """Volumes by id. ``makes`` says whether new volumes become available by themselves; ``refuses`` is the next fault."""

    def __init__(self):
        super().__init__()
        self.volumes, self.attachments, self.snapshots = {}, {}, {}
        self.makes, self.refuses = True, None

    def add(self, **more):
        volume = {'id': str(uuid.uuid4()), 'status': 'available', 'size': 1, 'name': 'v', 'description': None, 'multiattach': False,
                  'bootable': 'false', 'metadata': {}, 'availability_zone': 'nova', 'created_at': '2026-01-01T00:00:00.000000',
                  'volume_type': 'default', 'snapshot_id': None, 'project_id': testing.PROJECT, **more}
        self.volumes[volume['id']] = volume
        return volume['id']

    def exports(self):
        """``{(volume, host)}`` of what is offered now."""
        return {(held['volume_id'], held['connector']['host']) for held in self.attachments.values() if held['connector']}

    def of(self, volume_id):
        return [held for held in self.attachments.values() if held['volume_id'] == volume_id]

    def view(self, volume):
        return {**volume, 'attachments': [{'server_id': held['instance'], 'attachment_id': held['id'], 'device': '/dev/vdb',
                                           'volume_id': volume['id'], 'id': volume['id']} for held in self.of(volume['id'])
                                          if held['status'] == 'attached']}

    def settle(self, volume):
        """The status that goes with the attachments that are left."""
        states = {held['status'] for held in self.of(volume['id'])}
        volume['status'] = ('in-use' if 'attached' in states else 'attaching' if 'attaching' in states else 'reserved' if states
                            else 'available')

    def answer(self, method, path, query, body):
        if self.refuses:
            (status, message), self.refuses = self.refuses, None
            return status, {'fault': {'code': status, 'message': message}}
        _, project, kind, *rest = path.strip('/').split('/')
        assert project
        if rest == ['detail'] and method == 'GET':
            return self.list(kind, query)
        table = getattr(self, kind)
        if method == 'POST' and not rest:
            return getattr(self, 'make_' + kind)(body[kind[:-1]])
        found = table.get(rest[0])
        if found is None:
            return 404, {'itemNotFound': {'code': 404, 'message': f'{kind} {rest[0]} could not be found.'}}
        if rest[1:] == ['action']:
            (name, args), = body.items()
            return getattr(self, name.replace('-', '_'))(found, args or {})
        if method == 'DELETE':
            return getattr(self, 'delete_' + kind)(found)
        if method == 'PUT':
            return self.connect(found, body['attachment']['connector'])
        return 200, {kind[:-1]: self.view(found) if kind == 'volumes' else self.shown(found) if kind == 'attachments' else found}

    def list(self, kind, query):
        found = list(getattr(self, kind).values())
        if 'instance_id' in query:
            found = [self.shown(held) for held in found if held['instance'] == query['instance_id'][0]]
        if 'metadata' in query:
            found = [volume for volume in found if query['metadata'] == [str(volume['metadata'])]]
        return 200, {kind: [self.view(entry) for entry in found] if kind == 'volumes' else found}

    @staticmethod
    def shown(held):
        return {name: value for name, value in held.items() if name != 'connector'}

    @staticmethod
    def wrong(volume, wanted):
        return 400, {'badRequest': {'code': 400, 'message': f"Volume {volume['id']} status must be {wanted} but is "
                                                            f"{volume['status']}."}}

    def make_volumes(self, sent):
        status = 'available' if self.makes else 'creating'
        found = self.add(status=status, bootable='true' if sent.get('imageRef') or sent.get('snapshot_id') else 'false', **sent)
        return 202, {'volume': self.volumes[found]}

    def delete_volumes(self, volume):
        if volume['status'] not in ('available', 'error') or any(
                snapshot['volume_id'] == volume['id'] for snapshot in self.snapshots.values()):
            return self.wrong(volume, 'available and it must have no snapshots')
        del self.volumes[volume['id']]
        return 202, None

    def make_snapshots(self, sent):
        if sent['volume_id'] not in self.volumes:
            return 404, {'itemNotFound': {'code': 404, 'message': f'Volume {sent["volume_id"]} could not be found.'}}
        made = {'id': str(uuid.uuid4()), 'status': 'available', 'size': self.volumes[sent['volume_id']]['size'],
                'created_at': '2026-01-01T00:00:00.000000', 'description': None, **sent}
        self.snapshots[made['id']] = made
        return 202, {'snapshot': made}

    def delete_snapshots(self, snapshot):
        del self.snapshots[snapshot['id']]
        return 202, None

    def make_attachments(self, sent):
        volume = self.volumes.get(sent['volume_uuid'])
        if volume is None:
            return 404, {'itemNotFound': {'code': 404, 'message': 'no such volume'}}
        others = self.of(volume['id'])
        same = others and all(held['instance'] == sent['instance_uuid'] for held in others)
        if volume['status'] != 'available' and not same and not (volume['multiattach'] and volume['status'] == 'in-use'):
            return self.wrong(volume, 'available')
        made = {'id': str(uuid.uuid4()), 'volume_id': volume['id'], 'instance': sent['instance_uuid'], 'status': 'reserved',
                'connector': None, 'connection_info': {}}
        self.attachments[made['id']] = made
        if not others:
            volume['status'] = 'reserved'
        return 200, {'attachment': self.shown(made)}

    def connect(self, held, connector):
        assert {'host', 'ip', 'initiator', 'mountpoint'} <= connector.keys()
        assert held['connector'] is None or held['connector']['host'] == connector['host']
        if held['connector'] is None:
            held.update(connector=connector, status='attaching')
        held['connection_info'] = {
            'driver_volume_type': 'iscsi', 'target_portal': '127.0.0.1:3260', 'target_iqn': 'iqn.x:' + held['volume_id'],
            'target_lun': 1, 'auth_method': 'CHAP', 'auth_username': 'u', 'auth_password': 'secret', 'access_mode': 'rw',
            'encrypted': False, 'volume_id': held['volume_id']}
        return 200, {'attachment': self.shown(held)}

    def os_complete(self, held, args):
        held['status'] = 'attached'
        self.settle(self.volumes[held['volume_id']])
        return 204, None

    def delete_attachments(self, held):
        del self.attachments[held['id']]
        self.settle(self.volumes[held['volume_id']])
        return 200, {'attachments': []}

    def os_begin_detaching(self, volume, args):
        if volume['status'] != 'in-use':
            return self.wrong(volume, 'in-use')
        volume['status'] = 'detaching'
        return 202, None

    def os_roll_detaching(self, volume, args):
        volume['status'] = 'in-use'
        return 202, None

    def os_reimage(self, volume, args):
        if volume['status'] not in ('available', 'reserved'):
            return self.wrong(volume, 'reserved')
        volume['image'] = args['image_id']
        return 202, None
