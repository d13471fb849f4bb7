"""Every saga, crashed, failed and aborted at every step."""
import pytest
from servers_world import World

from kodiak.common import saga_testing
from kodiak.compute.sagas import boot, delete, interface, move, refresh, snapshot


class Boot(World):
    saga = boot.SAGA

    def prepare(self):
        """There is no server yet."""

    def begin(self):
        self.create()

    def succeeded(self):
        self.alive('one')

    def failed(self, step):
        self.gone()
        row = self.row()
        assert (row['vm_state'], row['task_state'], row['host']) == ('error', None, None) and row['fault']['message']


class Delete(World):
    saga = delete.SAGA

    def begin(self):
        self.admin.delete('/servers/' + self.uuid).expect(204)

    def succeeded(self):
        self.gone()
        assert self.row()['deleted']

    def failed(self, step):
        row = self.row()
        assert row['vm_state'] == 'error' and 'could not be deleted' in row['fault']['message']
        # Asked again, it goes.
        self.begin()
        self.outside()
        self.cloud.hurry()
        self.cloud.settle()
        self.succeeded()


class Refresh(World):
    saga = refresh.SAGA

    def begin(self):
        self.admin.post('/os-server-external-events', {'events': [{'name': 'network-changed',
                                                                   'server_uuid': self.uuid}]}).expect(200)

    def succeeded(self):
        self.alive('one')

    def failed(self, step):
        self.alive('one')


class Resize(World):
    saga = move.MOVE

    def begin(self):
        self.act('resize', {'flavorRef': self.make_flavor('big', 2)}, settle=False)

    def succeeded(self):
        assert self.row()['vm_state'] == 'resized' and self.row()['vcpus'] == 2 and self.row()['host'] == 'one'
        self.act('confirmResize', status=204)
        self.alive('one', 2)

    def failed(self, step):
        self.alive('one', fault=True)
        assert self.row()['vcpus'] == 1


class Migrate(World):
    saga = move.MOVE

    def begin(self):
        self.act('migrate', settle=False)

    def succeeded(self):
        assert self.row()['vm_state'] == 'resized' and self.row()['host'] == 'two'
        assert self.guests() == {'one': 'stopped', 'two': 'running'}
        self.act('confirmResize', status=204)
        self.alive('two')

    def failed(self, step):
        self.alive('one', fault=True)


class Confirm(Migrate):
    saga = move.CONFIRM

    def prepare(self):
        super().prepare()
        self.act('migrate')

    def begin(self):
        self.act('confirmResize', status=204, settle=False)

    def succeeded(self):
        self.alive('two')

    def failed(self, step):
        assert self.row()['vm_state'] == 'resized' and self.row()['fault']


class Revert(Confirm):
    saga = move.REVERT

    def begin(self):
        self.act('revertResize', settle=False)

    def succeeded(self):
        self.alive('one')

    def failed(self, step):
        assert self.row()['vm_state'] == 'error' and self.row()['fault']


class RevertHere(Revert):
    def prepare(self):
        World.prepare(self)
        self.act('resize', {'flavorRef': self.make_flavor('big', 2)})


class Evacuate(World):
    saga = move.EVACUATE

    def begin(self):
        self.down(True)
        self.act('evacuate', {'host': 'two'}, 200, settle=False)

    def succeeded(self):
        self.alive('two', vm_state='stopped')

    def failed(self, step):
        self.down(False)
        self.alive('one', vm_state='error', fault=True)


class Snapshot(World):
    saga = snapshot.SNAPSHOT

    def begin(self):
        self.act('createImage', {'name': 'snap'}, settle=False)

    def succeeded(self):
        self.alive('one')
        assert sorted(image['name'] for image in self.cloud.image.images.values()) == ['guest', 'snap']

    def failed(self, step):
        self.alive('one', fault=True)


class Shelve(World):
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
        assert [port['binding:host_id'] for port in self.cloud.network.ports.values()] == ['']
        assert len(self.cloud.image.images) == 2

    def failed(self, step):
        self.alive('one', fault=True)


class Offload(Shelve):
    saga = snapshot.OFFLOAD

    def failed(self, step):
        # There is no way back; when its time is up it is begun again.
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
        assert list(self.cloud.image.images) == [self.image] and self.row()['image']['id'] == self.image

    def failed(self, step):
        self.offloaded(fault=True)
        assert self.row()['image']['id'] == self.image


class Attach(World):
    saga = interface.ATTACH

    def begin(self):
        self.admin.post(f'/servers/{self.uuid}/os-interface', {'interfaceAttachment': {'net_id': self.network}}).expect(200)

    def succeeded(self):
        self.alive('one')
        assert self.cloud.agent.drivers['one'].look(self.uuid).ports == set(self.cloud.network.ports)
        assert len(self.cloud.network.ports) == 2 and len(self.row()['networks']) == 2

    def failed(self, step):
        self.alive('one')
        assert len(self.cloud.network.ports) == 1 and len(self.row()['networks']) == 1


class Detach(World):
    saga = interface.DETACH

    def begin(self):
        self.admin.delete(f'/servers/{self.uuid}/os-interface/{self.row()["networks"][0]["id"]}').expect(202)

    def succeeded(self):
        assert self.cloud.network.ports == {} and self.row()['networks'] == []
        assert self.cloud.agent.drivers['one'].look(self.uuid).ports == set()

    def failed(self, step):
        self.outside()
        assert [port['id'] for port in self.row()['networks']] == list(self.cloud.network.ports)
        assert self.cloud.agent.drivers['one'].look(self.uuid).ports == set(self.cloud.network.ports)


WORLDS = [Boot, Delete, Refresh, Migrate, Confirm, Revert, Evacuate, Snapshot, Shelve, Offload, Unshelve, Attach, Detach]
CASES = [(world, case) for world in WORLDS for case in saga_testing.cases(world.saga)]
# On one host these sagas skip steps, so that fewer cases are different.
CASES += [(Resize, case) for case in saga_testing.cases(move.MOVE) if case.step in ('', 'claim', 'leave')]
CASES += [(RevertHere, case) for case in saga_testing.cases(move.REVERT) if case.step in ('', 'leave')]


@pytest.mark.parametrize(('world', 'case'), CASES, ids=lambda value: getattr(value, '__name__', None) or str(value))
def test_it_survives(world, case, make_cloud):
    saga_testing.run(case, world(make_cloud))
