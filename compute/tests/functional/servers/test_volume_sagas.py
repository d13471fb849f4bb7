"""Every saga that touches volumes, crashed, failed and aborted at every step: block storage and compute agree at the end."""
import pytest
from servers_world import World

from kodiak.common import saga_testing
from kodiak.compute import models, store
from kodiak.compute.sagas import boot, delete, move, rebuild, relocate, snapshot, swap, volumes


class Volumes(World):
    """A server that booted from a volume that was made for it, with another volume."""

    def create(self):
        self.data = self.cloud.block.add()
        sent = {'name': 's', 'flavorRef': self.flavor, 'networks': [{'uuid': self.network}], 'availability_zone': 'nova:one',
                'block_device_mapping_v2': [
                    {'source_type': 'image', 'uuid': self.image, 'destination_type': 'volume', 'volume_size': 1, 'boot_index': 0,
                     'delete_on_termination': True},
                    {'source_type': 'volume', 'uuid': self.data, 'destination_type': 'volume', 'boot_index': -1}]}
        self.uuid = self.admin.post('/servers', {'server': sent}).expect(202).json['server']['id']
        self.root = next((volume for volume in self.cloud.block.volumes if volume != self.data), None)

    def both(self, host):
        self.attached(self.root, self.data, host=host)


class Boot(Volumes):
    saga = boot.WITH_VOLUMES

    def prepare(self):
        """There is no server yet."""

    def begin(self):
        self.create()

    def succeeded(self):
        self.alive('one')
        self.both('one')

    def failed(self, step):
        self.cloud.settle()
        self.gone()
        row = self.row()
        assert (row['vm_state'], row['task_state'], row['host'], row['volumes']) == ('error', None, None, [])
        assert {volume['id']: volume['status'] for volume in self.cloud.block.volumes.values()} == {self.data: 'available'}


class CutOff(Boot):
    """The API process died before it had made the volume of the second server, and after it had made that of the first."""

    def create(self):
        from kodiak.compute.api import create
        made, create.volumes.make = create.volumes.make, lambda app, context, rows: None
        try:
            super().create()
        finally:
            create.volumes.make = made
        self.root = self.cloud.block.add(metadata={'kodiak_server': self.uuid})
        with self.cloud.db.write() as connection:
            connection.execute(models.sagas.update().values(data={'until': 0}))

    def succeeded(self):
        raise AssertionError('without its volume the server cannot boot')


class Delete(Volumes):
    saga = delete.SAGA

    def begin(self):
        self.admin.delete('/servers/' + self.uuid).expect(204)

    def succeeded(self):
        self.gone()
        assert self.row()['deleted']
        assert {volume['id']: volume['status'] for volume in self.cloud.block.volumes.values()} == {self.data: 'available'}

    def failed(self, step):
        self.begin()
        self.outside()
        self.cloud.hurry()
        self.cloud.settle()
        self.succeeded()


class Attach(Volumes):
    saga = volumes.ATTACH

    def begin(self):
        self.third = self.cloud.block.add()
        answer = self.admin.post(f'/servers/{self.uuid}/os-volume_attachments', {'volumeAttachment': {'volumeId': self.third}})
        assert answer.expect(200).json['volumeAttachment']['device'] == '/dev/vdc'

    def succeeded(self):
        self.alive('one')
        self.attached(self.root, self.data, self.third, host='one')

    def failed(self, step):
        self.alive('one')
        self.both('one')


class AttachCutOff(Attach):
    """The API process died after it had reserved the volume, before it could tell."""

    def begin(self):
        from kodiak.compute.api import volumes as api
        reserved, api.reserve = api.reserve, lambda req, server_id, volume_id: self.cloud.block.make_attachments(
            {'volume_uuid': volume_id, 'instance_uuid': server_id}) and self.row()
        try:
            super().begin()
        finally:
            api.reserve = reserved
        with self.cloud.db.write() as connection:
            connection.execute(models.sagas.update().values(data={'until': 0, 'volume': self.third}))

    def succeeded(self):
        raise AssertionError('what nobody knows to be reserved cannot be attached')


class Detach(Volumes):
    saga = volumes.DETACH

    def begin(self):
        self.admin.delete(f'/servers/{self.uuid}/os-volume_attachments/{self.data}').expect(202)

    def succeeded(self):
        self.alive('one')
        self.attached(self.root, host='one')

    def failed(self, step):
        self.outside()
        self.alive('one')
        if self.cloud.block.of(self.data):
            self.both('one')
        else:
            # The attachment had ended already: the volume is free, and the server does without.
            self.succeeded()


class DetachCutOff(Detach):
    """The API process died when block storage had heard, and the saga had not."""

    def begin(self):
        from kodiak.compute.api import volumes as api
        left = api.leave
        api.leave = lambda req, server_id, volume_id: self.cloud.block.volumes[volume_id].update(status='detaching')
        try:
            super().begin()
        finally:
            api.leave = left
        with self.cloud.db.write() as connection:
            connection.execute(models.sagas.update().values(data={'until': 0, 'volume': self.data}))

    def succeeded(self):
        raise AssertionError('nobody knows whether it may leave')


class Migrate(Volumes):
    saga = move.MOVE

    def begin(self):
        self.act('migrate', settle=False)

    def succeeded(self):
        assert self.row()['vm_state'] == 'resized' and self.row()['host'] == 'two'
        block = self.cloud.block
        assert block.exports() == {(volume, host) for volume in (self.root, self.data) for host in ('one', 'two')}
        self.act('confirmResize', status=204)
        self.alive('two')
        self.both('two')

    def failed(self, step):
        self.alive('one', fault=True)
        self.both('one')


class Confirm(Migrate):
    saga = move.CONFIRM

    def prepare(self):
        super().prepare()
        self.act('migrate')

    def begin(self):
        self.act('confirmResize', status=204, settle=False)

    def succeeded(self):
        self.alive('two')
        self.both('two')

    def failed(self, step):
        self.act('confirmResize', status=204)
        self.succeeded_with_fault()

    def succeeded_with_fault(self):
        self.alive('two', fault=True)
        self.both('two')


class Revert(Confirm):
    """With a volume that came while the server was on the other host."""

    saga = move.REVERT

    def prepare(self):
        super().prepare()
        self.third = self.cloud.block.add()
        self.admin.post(f'/servers/{self.uuid}/os-volume_attachments', {'volumeAttachment': {'volumeId': self.third}}).expect(200)
        self.cloud.settle()

    def begin(self):
        self.act('revertResize', settle=False)

    def succeeded(self):
        self.alive('one')
        self.attached(self.root, self.data, self.third, host='one')

    def failed(self, step):
        assert self.row()['vm_state'] == 'error' and self.row()['fault']


class Evacuate(Volumes):
    saga = move.EVACUATE

    def begin(self):
        self.down(True)
        self.act('evacuate', {'host': 'two'}, 200, settle=False)

    def succeeded(self):
        self.alive('two', vm_state='stopped')
        self.both('two')

    def failed(self, step):
        self.down(False)
        self.alive('one', vm_state='error', fault=True)
        self.both('one')


class Shelve(Volumes):
    saga = snapshot.SHELVE

    def begin(self):
        self.act('shelve', settle=False)

    def succeeded(self):
        self.cloud.hurry()
        self.cloud.settle()
        self.offloaded()

    def offloaded(self, fault=False):
        row = self.row()
        assert (row['vm_state'], row['task_state'], row['host']) == ('shelved_offloaded', None, None)
        assert self.guests() == {} and self.consumers() == {} and bool(row['fault']) == fault
        assert list(self.cloud.image.images) == [self.image]
        self.both('')

    def failed(self, step):
        self.alive('one', fault=True)
        self.both('one')


class Offload(Shelve):
    saga = snapshot.OFFLOAD

    def failed(self, step):
        assert self.row()['task_state'] == 'shelving_offloading'
        self.overdue()
        self.offloaded()


class Unshelve(Shelve):
    saga = snapshot.UNSHELVE

    def prepare(self):
        super().prepare()
        self.act('shelve')

    def begin(self):
        self.act('unshelve', settle=False)

    def succeeded(self):
        self.cloud.settle()
        self.alive(self.row()['host'])
        self.both(self.row()['host'])

    def failed(self, step):
        self.offloaded(fault=True)


class Extend(Volumes):
    saga = volumes.EXTEND

    def begin(self):
        self.cloud.block.volumes[self.data]['size'] = 3
        self.admin.post('/os-server-external-events', {'events': [
            {'name': 'volume-extended', 'server_uuid': self.uuid, 'tag': self.data}]}).expect(200)

    def succeeded(self):
        self.alive('one')
        self.both('one')
        assert [entry['size'] for entry in self.row()['volumes']] == [1, 3]

    def failed(self, step):
        self.alive('one')
        self.both('one')


class Rebuild(Volumes):
    saga = rebuild.REBUILD

    def begin(self):
        self.other = self.cloud.image.add(hw_disk_bus='scsi')
        self.act('rebuild', {'imageRef': self.other}, settle=False)
        assert self.admin.get('/servers/' + self.uuid).json['server']['status'] == 'REBUILD'

    def succeeded(self):
        self.alive('one')
        self.both('one')
        assert self.cloud.block.volumes[self.root]['image'] == self.other
        with self.cloud.db.read() as connection:
            assert store.spec(connection, self.uuid)['hardware'] == {'image_id': self.other, 'hw_disk_bus': 'scsi'}

    def failed(self, step):
        # Once the volume may have been written to, it would be a lie to call the server what it was.
        state = self.row()['vm_state']
        assert state == 'error' if 'image' in self.cloud.block.volumes[self.root] else step != 'stop' or state == 'active'
        self.alive('one', vm_state=state, fault=True)
        self.both('one')


class Swap(Volumes):
    saga = swap.SWAP

    def begin(self):
        self.new = self.cloud.block.add(size=2)
        self.admin.put(f'/servers/{self.uuid}/os-volume_attachments/{self.data}', {
            'volumeAttachment': {'volumeId': self.new}}).expect(202)

    def succeeded(self):
        self.alive('one')
        self.attached(self.root, self.new, host='one')
        assert self.row()['volumes'][1]['size'] == 2 and not self.row()['volumes'][1]['swap']

    def failed(self, step):
        self.outside()
        self.alive('one')
        if self.cloud.block.of(self.data):
            self.both('one')
        else:
            # The old volume had been let go: there is no way back, and the new one is whole.
            self.succeeded()


class Follow(Volumes):
    """Block storage moves a volume of the server to another back end."""

    saga = relocate.FOLLOW

    def begin(self):
        block = self.cloud.block
        self.old, = (held['id'] for held in block.of(self.data))
        _, answer = block.make_attachments({'volume_uuid': self.data, 'instance_uuid': self.uuid})
        self.new = answer['attachment']['id']
        self.admin.post('/os-server-external-events', {'events': [
            {'name': 'volume-moving', 'server_uuid': self.uuid, 'tag': self.data}]}).expect(200)

    def has(self, attachment):
        self.alive('one')
        self.both('one')
        assert [held['id'] for held in self.cloud.block.of(self.data)] == [attachment]
        held, = self.row()['volumes'][1]['attachments'].values()
        assert held['id'] == attachment and held['connection']

    def succeeded(self):
        self.has(self.new)

    def failed(self, step):
        self.outside()
        left = [held['id'] for held in self.cloud.block.of(self.data)]
        # Once the old attachment has ended there is no way back.
        self.has(self.old if self.old in left else self.new)


WORLDS = [Boot, Delete, Attach, Detach, Migrate, Confirm, Revert, Evacuate, Shelve, Offload, Unshelve, Extend, Rebuild, Swap,
          Follow]
CASES = [(world, case) for world in WORLDS for case in saga_testing.cases(world.saga)]
CASES += [(world, saga_testing.Case('fail', step, 'after')) for world, step in (
    (CutOff, 'volumes'), (AttachCutOff, 'reserve'), (DetachCutOff, 'begin'))]


@pytest.mark.parametrize(('world', 'case'), CASES, ids=lambda value: getattr(value, '__name__', None) or str(value))
def test_block_storage_and_compute_agree(world, case, make_cloud):
    saga_testing.run(case, world(make_cloud))
