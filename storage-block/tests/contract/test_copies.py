"""A volume of another host is copied by way of its export."""
import types
import uuid

from kodiak.storage_block.agent import tasks
from kodiak.storage_block.agent.backend import Backend
from kodiak.storage_block.drivers import base
from kodiak.storage_block.drivers.file import FileDriver
from kodiak.storage_block.exports.base import Export

MIB = 1 << 20
SIZE = 32 * MIB


def make(folder, name):
    driver = FileDriver(name, types.SimpleNamespace(path=str(folder / name)))
    driver.start()
    return driver


def test_a_copy_over_the_wire_is_the_volume(tmp_path, exporter, monkeypatch):
    monkeypatch.setattr(tasks, 'GIB', SIZE)
    made, _server = exporter
    monkeypatch.setattr(tasks, 'NBD_CERTIFICATES', getattr(made, 'client_certificates', None))
    here, there, id = make(tmp_path, 'here'), make(tmp_path, 'there'), str(uuid.uuid4())
    there.create(base.volume(id), SIZE)
    with open(there.open(base.volume(id)).path, 'r+b') as file:
        file.seek(5 * MIB)
        file.write(b'far away' * 1000)
    export = Export(str(uuid.uuid4()), id, there.open(base.volume(id)), SIZE, read_only=True, username='copier',
                    password='secret-of-20-letters')
    made.sync([export])
    backend = Backend('here', here.options, here)
    backend.error = None
    work = {'number': 1, 'kind': 'create_volume', 'backend': 'here', 'resource_id': id, 'args': {
        'volume_id': id, 'size': 2, 'encryption': None,
        'source': {'type': 'connection', 'connection': made.connection(export), 'size': 1}}}
    done = tasks.Tasks({'here': backend}, None, None, None, str(tmp_path / 'passing'))
    for _ in range(2):
        done.perform(work)
        assert here.size(base.volume(id)) == 2 * SIZE
    with open(here.open(base.volume(id)).path, 'rb') as file:
        file.seek(5 * MIB)
        assert file.read(8000) == b'far away' * 1000
        assert not any(file.read(MIB))
