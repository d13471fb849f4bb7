"""Every step of every saga, crashed, failed and aborted: each ends in a stable status, and nothing of it is left behind."""
import uuid

import pytest
import sqlalchemy as sa

from kodiak.common import context, db, saga, saga_testing
from kodiak.storage_block import attach, models, sagas, states, store, work
from kodiak.storage_block.sagas import backups, groups, manage, moves, snapshots, volumes

BACKEND = {'name': 'file', 'driver': 'file', 'protocol': 'iSCSI', 'vendor': 'Kodiak', 'zone': 'nova', 'total_gb': 100.0,
           'free_gb': 90.0, 'thin': True, 'max_over_subscription_ratio': 1.0, 'multiattach': True, 'error': None,
           'capabilities': {}}


class Scenario(saga_testing.Scenario):
    """A saga of a cloud of its own; :meth:`start` is the subclass's."""

    table, hosts = models.volumes, None
    good, bad = states.AVAILABLE, states.ERROR

    def __init__(self, cloud):
        self.cloud, self.app = cloud, cloud.app
        self.db = cloud.db
        self.others = tuple(one for one in sagas.ALL if one is not self.saga)
        self.id = None

    def outside(self):
        for agent in self.cloud.agents.values():
            agent.look()

    def volume(self, connection, status=states.AVAILABLE, **more):
        """A volume that is there already."""
        row = store.insert_volume(connection, {
            'project_id': 'p', 'name': 'v', 'size': 1, 'status': status, 'backend': 'one@file', **more})
        if status != states.CREATING:
            self.cloud.agent.there.add(f'file/volume-{row["id"]}')
        return row

    def snapshot(self, connection, volume, status=states.AVAILABLE, **more):
        return store.insert(connection, models.snapshots, {
            'volume_id': volume['id'], 'project_id': 'p', 'size': 1, 'status': status, 'progress': 0, 'backend': 'one@file',
            'consumes_quota': True, 'metadata': {}, 'image_metadata': {}, **more})

    def row(self, table=None, row_id=None):
        with self.db.read() as connection:
            return store.get(connection, self.table if table is None else table, row_id or self.id)

    def ended(self):
        """Nothing is left to do, and nothing is transient."""
        self.outside()
        with self.db.read() as connection:
            assert not connection.execute(sa.select(models.work.c.kind).where(models.work.c.state == 'wanted')).all()
            for table in (models.volumes, models.snapshots, models.backups, models.groups, models.group_snapshots):
                for row in db.all_dicts(connection, sa.select(table)):
                    assert row['deadline'] is None or row['id'] == self.id, f"{table.name} {row['status']}"

    def succeeded(self):
        self.ended()
        assert self.row()['status'] == self.good

    def failed(self, step):
        self.ended()
        row = self.row()
        if row['status'] in states.OF[self.table.name]:
            return      # aborted: whoever aborted it goes on from here
        assert row['status'] == self.bad
        with self.db.read() as connection:
            texts = connection.scalars(sa.select(models.messages.c.text).where(models.messages.c.resource_uuid == self.id)).all()
        assert texts and all(texts)


class Create(Scenario):
    saga = volumes.CREATE

    def start(self):
        with self.db.write() as connection:
            self.id = self.volume(connection, states.CREATING, backend=None)['id']
            saga.start(connection, self.saga, self.id, {'source': {'type': 'none'}, 'wish': {'size': 1}})
        return self.id

    def succeeded(self):
        super().succeeded()
        assert self.cloud.agent.there == {f'file/volume-{self.id}'} and self.row()['backend'] == 'one@file'

    def failed(self, step):
        super().failed(step)
        assert self.cloud.agent.there == set()


class Restored(Create):
    saga = volumes.CREATE_RESTORED

    def start(self):
        with self.db.write() as connection:
            backup = a_backup(connection, str(uuid.uuid4()), states.RESTORING)
            self.backup = backup['id']
            self.id = self.volume(connection, states.CREATING, backend=None)['id']
            saga.start(connection, self.saga, self.id, {
                'source': {'type': 'none'}, 'wish': {'size': 1}, 'backup_id': self.backup})
        return self.id

    def ended(self):
        if self.row()['status'] in (states.AVAILABLE, states.ERROR):
            assert self.row(models.backups, self.backup)['status'] == states.AVAILABLE
            super().ended()


def a_backup(connection, volume_id, status, record=True):
    return store.insert(connection, models.backups, {
        'project_id': 'p', 'volume_id': volume_id, 'size': 1, 'status': status, 'object_count': 1, 'host': 'one',
        'record': {'service': 'file', 'container': 'c', 'prefix': 'p', 'object_count': 1, 'size': 1,
                   'metadata': {}} if record else None,
        'data_timestamp': db.utcnow(), 'metadata': {}})


class Delete(Scenario):
    saga = volumes.DELETE
    bad = states.ERROR_DELETING

    def start(self):
        with self.db.write() as connection:
            row = self.volume(connection)
            self.id = row['id']
            self.snapshot(connection, row)
            volumes.begin_delete(connection, store.lock(connection, models.volumes, self.id), None, cascade=True)
        return self.id

    def succeeded(self):
        self.ended()
        assert self.row() is None and self.cloud.agent.there == set() and self.cloud.all(models.snapshots) == []

    def ended(self):
        if self.row() is None or self.row()['status'] != states.DELETING:
            super().ended()


class OfVolume(Scenario):
    """A saga of a volume that is there."""

    status, data, bad = None, None, states.ERROR

    def start(self):
        with self.db.write() as connection:
            self.id = self.volume(connection, self.status, claimed=1)['id']
            saga.start(connection, self.saga, self.id, dict(self.data or {}))
        return self.id


class Extend(OfVolume):
    saga, status, data, bad = volumes.EXTEND, states.EXTENDING, {'size': 3}, states.ERROR_EXTENDING

    def succeeded(self):
        super().succeeded()
        assert self.row()['size'] == 3


class Upload(OfVolume):
    saga, status, bad = volumes.UPLOAD, states.UPLOADING, states.AVAILABLE

    def start(self):
        self.image = self.cloud.image.add(status='queued')
        self.data = {'image': {'id': self.image, 'disk_format': 'raw', 'container_format': 'bare'}}
        return super().start()

    def failed(self, step):
        super().failed(step)
        assert self.image not in self.cloud.image.images


class Reimage(OfVolume):
    saga, status, data = volumes.REIMAGE, states.DOWNLOADING, {'image': {'id': str(uuid.uuid4())}, 'image_metadata': {}}


class Revert(OfVolume):
    saga, status = volumes.REVERT, states.REVERTING

    def start(self):
        with self.db.write() as connection:
            row = self.volume(connection, self.status)
            self.id = row['id']
            self.snapshot_id = self.snapshot(connection, row, states.RESTORING)['id']
            saga.start(connection, self.saga, self.id, {'snapshot_id': self.snapshot_id})
        return self.id

    def ended(self):
        if self.row()['status'] != states.REVERTING:
            assert self.row(models.snapshots, self.snapshot_id)['status'] == states.AVAILABLE
            super().ended()


class Move(OfVolume):
    """To a back end of another host, with another type."""

    saga, status, bad = moves.MOVE, states.RETYPING, states.AVAILABLE
    hosts = {'one': [BACKEND], 'two': [{**BACKEND, 'name': 'far'}]}

    def start(self):
        with self.db.write() as connection:
            row = self.volume(connection)
            self.id = row['id']
            kind = store.insert(connection, models.volume_types, {
                'name': 'there', 'is_public': True, 'extra_specs': {'volume_backend_name': 'far'}})
            moves.begin_retype(connection, store.lock(connection, models.volumes, self.id), kind, 'on-demand', None)
        return self.id

    def succeeded(self):
        super().succeeded()
        assert self.row()['backend'] == 'two@far' and self.cloud.agents['one'].there == set()
        assert self.cloud.agents['two'].there == {f'far/volume-{self.id}'} and self.cloud.all(models.attachments) == []

    def failed(self, step):
        super().failed(step)
        row = self.row()
        where = {f'{work.short(row["backend"])}/volume-{self.id}'}
        assert self.cloud.agents['one'].there | self.cloud.agents['two'].there == where
        assert row['target'] is None and self.cloud.all(models.attachments) == []


class MoveAttached(Move):
    """A server that has it goes on with the copy; compute is played here."""

    bad = states.IN_USE
    good = states.IN_USE

    def start(self):
        found = super().start()
        self.cloud.hinted()
        return found

    def volume(self, connection, **more):
        row = super().volume(connection, states.IN_USE, **more)
        held = attach.reserve(connection, {**row, 'status': states.AVAILABLE}, context.background(), db.new_id(), 'rw')
        attach.export(connection, self.app.conf, row, held, {'host': 'here'})
        attach.complete(connection, row, held)
        self.first = held['id']
        return row

    def outside(self):
        super().outside()
        self.cloud.hinted()
        with self.db.write() as connection:
            row = store.lock(connection, models.volumes, self.id)
            held = {one['id']: one for one in store.attachments_of(connection, self.id)}
            mine = next((one for key, one in held.items() if key != self.first), None)
            if mine is None:
                return
            if mine['connector'] is None:
                attach.export(connection, self.app.conf, row, mine, {'host': 'here'})
            elif mine['reached'] and self.first in held:
                attach.complete(connection, row, mine)
                attach.remove(connection, row, held[self.first])

    def exported(self, host):
        held, = self.cloud.all(models.attachments)
        self.cloud.hinted()
        assert self.cloud.agents[host].exports.keys() == {held['id']} and held['attach_status'] == 'attached'
        return held['id'] == self.first

    def succeeded(self):
        row = self.row()
        assert (row['status'], row['backend'], row['target']) == (states.IN_USE, 'two@far', None)
        assert self.cloud.agents['one'].there == set() and self.cloud.agents['two'].there == {f'far/volume-{self.id}'}
        assert not self.exported('two')

    def failed(self, step):
        for agent in self.cloud.agents.values():
            agent.look()
        row = self.row()
        # One that was aborted is left to whoever did that.
        assert row['status'] in (states.IN_USE, states.RETYPING) and row['target'] is None
        # Once the server has followed there is no way back.
        host = work.host_of(row['backend'])
        assert self.cloud.agents[host].there == {f'{work.short(row["backend"])}/volume-{self.id}'}
        assert self.cloud.agents['two' if host == 'one' else 'one'].there == set()
        assert self.exported(host) == (host == 'one')


class Manage(OfVolume):
    saga, status, data, bad = manage.MANAGE, states.MANAGING, {'reference': {'source-name': 'x'}}, states.ERROR_MANAGING


class Unmanage(OfVolume):
    saga, status, bad = manage.UNMANAGE, states.UNMANAGING, states.ERROR_UNMANAGING

    def succeeded(self):
        assert self.row() is None


class Snapshot(Scenario):
    saga, table = snapshots.CREATE, models.snapshots
    status = states.CREATING

    def start(self):
        with self.db.write() as connection:
            self.id = self.snapshot(connection, self.volume(connection), self.status)['id']
            saga.start(connection, self.saga, self.id, {'reference': {'source-name': 'x'}})
        return self.id


class SnapshotCreate(Snapshot):
    def failed(self, step):
        super().failed(step)
        assert not any('snapshot' in name for name in self.cloud.agent.there)


class SnapshotDelete(Snapshot):
    saga, status, bad = snapshots.DELETE, states.DELETING, states.ERROR_DELETING

    def succeeded(self):
        assert self.row() is None


class SnapshotManage(Snapshot):
    saga, status, bad = snapshots.MANAGE, states.MANAGING, states.ERROR_MANAGING


class SnapshotUnmanage(SnapshotDelete):
    saga, status, bad = snapshots.UNMANAGE, states.UNMANAGING, states.ERROR_UNMANAGING


class GroupSnapshot(Scenario):
    saga, table, status = snapshots.CREATE_ALL, models.group_snapshots, states.CREATING

    def start(self):
        with self.db.write() as connection:
            row = store.insert(connection, models.group_snapshots, {
                'group_id': str(uuid.uuid4()), 'project_id': 'p', 'status': self.status, 'group_type_id': str(uuid.uuid4())})
            self.id = row['id']
            self.members = [self.snapshot(connection, self.volume(connection), self.status, group_snapshot_id=self.id)['id']
                            for _ in range(2)]
            saga.start(connection, self.saga, self.id, {})
        return self.id

    def ended(self):
        if self.row() is not None and self.row()['status'] != self.status:
            assert {self.row(models.snapshots, one)['status'] for one in self.members} == {self.row()['status']}
            super().ended()


class GroupSnapshotDelete(GroupSnapshot):
    saga, status, bad = snapshots.DELETE_ALL, states.DELETING, states.ERROR_DELETING

    def succeeded(self):
        assert self.row() is None and self.cloud.all(models.snapshots) == []


class Backup(Scenario):
    saga, table = backups.CREATE, models.backups

    def start(self):
        with self.db.write() as connection:
            self.volume_id = self.volume(connection, states.BACKING_UP)['id']
            self.id = a_backup(connection, self.volume_id, states.CREATING, record=False)['id']
            saga.start(connection, self.saga, self.id, {})
        return self.id

    def ended(self):
        if self.row()['status'] != states.CREATING:
            assert self.row(models.volumes, self.volume_id)['status'] == states.AVAILABLE
            super().ended()


class BackupDelete(Scenario):
    saga, table, bad = backups.DELETE, models.backups, states.ERROR_DELETING

    def start(self):
        with self.db.write() as connection:
            self.id = a_backup(connection, str(uuid.uuid4()), states.DELETING)['id']
            saga.start(connection, self.saga, self.id, {})
        return self.id

    def succeeded(self):
        assert self.row() is None


class Restore(Scenario):
    saga, table, bad = backups.RESTORE, models.backups, states.AVAILABLE

    def start(self):
        with self.db.write() as connection:
            self.volume_id = self.volume(connection, states.RESTORING_BACKUP)['id']
            self.id = a_backup(connection, self.volume_id, states.RESTORING)['id']
            saga.start(connection, self.saga, self.id, {'volume_id': self.volume_id})
        return self.id

    def ended(self):
        if self.row()['status'] != states.RESTORING:
            assert self.row(models.volumes, self.volume_id)['status'] in (states.AVAILABLE, states.ERROR_RESTORING)
            super().ended()


class Group(Scenario):
    saga, table = groups.CREATE, models.groups

    def start(self):
        with self.db.write() as connection:
            self.id = a_group(connection)['id']
            saga.start(connection, self.saga, self.id, {'extra_specs': {}})
        return self.id


def a_group(connection, status=states.CREATING):
    return store.insert(connection, models.groups, {
        'project_id': 'p', 'status': status, 'group_type_id': str(uuid.uuid4()), 'volume_types': [], 'backend': None})


class GroupDelete(Group):
    saga, bad = groups.DELETE, states.ERROR_DELETING

    def start(self):
        with self.db.write() as connection:
            row = a_group(connection, states.AVAILABLE)
            self.id = row['id']
            self.volume(connection, group_id=self.id)
            groups.begin_delete(connection, store.lock(connection, models.groups, self.id), None)
        return self.id

    def succeeded(self):
        assert self.row() is None and self.cloud.agent.there == set()

    def ended(self):
        # Its volumes are deleted all the same, by sagas of their own.
        assert self.row()['status'] in (self.bad, states.DELETING)


SCENARIOS = [Create, Restored, Delete, Extend, Upload, Reimage, Revert, Move, MoveAttached, Manage, Unmanage, SnapshotCreate,
             SnapshotDelete, SnapshotManage, SnapshotUnmanage, GroupSnapshot, GroupSnapshotDelete, Backup, BackupDelete, Restore,
             Group, GroupDelete]
CASES = [(scenario, case) for scenario in SCENARIOS for case in saga_testing.cases(scenario.saga)]


def test_all_are_tried():
    assert {scenario.saga.name for scenario in SCENARIOS} == {one.name for one in sagas.ALL}


@pytest.mark.parametrize('scenario, case', CASES, ids=[f'{scenario.__name__}-{case}' for scenario, case in CASES])
def test_survives(scenario, case, make_cloud):
    saga_testing.run(case, scenario(make_cloud(hosts=scenario.hosts)))
