"""Two hosts and a server, for the tests of sagas."""
import sqlalchemy as sa

from kodiak.common import saga_testing, testing
from kodiak.compute import models, placement
from kodiak.compute.agent import state
from kodiak.compute.sagas import ALL


class Images:
    def __init__(self, image):
        self.image = image

    def upload(self, image_id, file, size, disk_format):
        self.image.images[image_id].update(status='active', size=size)


class World(saga_testing.Scenario):
    """A server on two hosts, with a port; ``prepare`` brings it to where the saga begins, ``begin`` asks for it."""

    def __init__(self, make_cloud):
        self.cloud = make_cloud(hosts=('one', 'two'))
        self.app, self.admin = self.cloud.app, self.cloud.client(testing.ADMIN)
        self.others = [found for found in ALL if found.name != self.saga.name]
        self.flavor = self.make_flavor('small', 1)
        self.image = self.cloud.image.add()
        self.network = self.cloud.network.add_network(project=testing.ADMIN.project_id)
        for driver in self.cloud.agent.drivers.values():
            driver.images = Images(self.cloud.image)
        self.prepare()
        self.cloud.network.wires = False

    def make_flavor(self, name, vcpus):
        sent = {'name': name, 'ram': 1, 'vcpus': vcpus, 'disk': 1}
        return self.admin.post('/flavors', {'flavor': sent}).expect(200).json['flavor']['id']

    def prepare(self):
        self.create()
        self.cloud.settle()

    def create(self):
        sent = {'name': 's', 'flavorRef': self.flavor, 'imageRef': self.image, 'networks': [{'uuid': self.network}],
                'availability_zone': 'nova:one'}
        self.uuid = self.admin.post('/servers', {'server': sent}).expect(202).json['server']['id']

    def act(self, action, body=None, status=202, settle=True):
        self.admin.post(f'/servers/{self.uuid}/action', {action: body}).expect(status)
        if settle:
            self.cloud.settle()

    def down(self, is_down):
        """Whether the first host is called down."""
        with self.cloud.db.write() as connection:
            connection.execute(models.services.update().where(models.services.c.host == 'one').values(forced_down=is_down))

    def overdue(self):
        """The task is past its deadline, and whoever looks after servers looks."""
        with self.cloud.db.write() as connection:
            connection.execute(models.servers.update().values(task_deadline=self.row()['created_at']))
        self.cloud.watch.look()
        self.cloud.settle()

    def start(self):
        self.begin()
        return self.uuid

    def outside(self):
        for port in self.cloud.network.ports.values():
            port['status'] = 'ACTIVE' if port['binding:host_id'] else 'DOWN'
        self.cloud.agent.reconciler.run_once()
        waiting, self.cloud.agent.reporter._waiting = self.cloud.agent.reporter._waiting, {}
        if waiting:
            self.cloud.handlers.report(None, [state.dump(report) for report in waiting.values()])

    # What holds at the end

    def row(self):
        return self.cloud.row(self.uuid)

    def guests(self):
        return {guest['host']: guest['desired'] for guest in self.cloud.all(models.guests)}

    def consumers(self):
        with self.cloud.db.read() as connection:
            return {uuid: placement.allocations(connection, uuid) for uuid in connection.scalars(
                sa.select(models.placement.consumers.c.uuid))}

    def alive(self, host, vcpus=1, vm_state='active', fault=False):
        """The server lives on a host, and there alone."""
        self.outside()
        row = self.row()
        assert (row['vm_state'], row['task_state'], row['host']) == (vm_state, None, host), row['fault']
        assert bool(row['fault']) == fault
        assert self.guests() == {host: 'stopped' if vm_state == 'stopped' else 'running'}
        assert [guest['operations'] for guest in self.cloud.all(models.guests)] == [[]]
        assert {port['binding:host_id'] for port in self.cloud.network.ports.values()} == {host}
        assert {uuid: [found['VCPU'] for found in held.values()] for uuid, held in self.consumers().items()} == {self.uuid: [vcpus]}
        found = self.cloud.agent.drivers[host].look(self.uuid)
        assert (found is not None and found.power == 'running') == (vm_state != 'stopped')
        other = 'two' if host == 'one' else 'one'
        assert self.cloud.agent.drivers[other].look(self.uuid) is None
        assert all(event['finished_at'] for event in self.cloud.all(models.action_events))

    def attached(self, *volumes, host):
        """These volumes, and no others, are offered, used, known and plugged, all of them at one host ('' for reserved at none)."""
        self.outside()
        block = self.cloud.block
        assert {(held['volume_id'], (held['connector'] or {'host': ''})['host']) for held in block.attachments.values()} == {
            (volume, host) for volume in volumes}
        assert len(block.attachments) == len(volumes)
        assert {block.volumes[volume]['status'] for volume in volumes} <= {'in-use' if host else 'reserved'}
        assert {volume['status'] for volume in block.volumes.values() if volume['id'] not in volumes} <= {'available'}
        entries = self.row()['volumes']
        assert {(entry['id'], *entry['attachments']) for entry in entries} == {(volume, host) for volume in volumes}
        assert {held['id'] for entry in entries for held in entry['attachments'].values()} == set(block.attachments)
        assert not any(entry.get('pending') for entry in entries)
        for name, driver in self.cloud.agent.drivers.items():
            found = driver.look(self.uuid)
            assert (found.volumes if found else set()) == (set(volumes) if name == host else set())

    def gone(self):
        """Nothing of the server is left anywhere."""
        self.outside()
        assert self.cloud.block.attachments == {}
        assert self.guests() == {} and self.consumers() == {} and self.cloud.network.ports == {}
        assert all(driver.records() == set() for driver in self.cloud.agent.drivers.values())
