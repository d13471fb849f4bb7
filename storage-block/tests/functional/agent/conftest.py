"""An agent with the file driver, an exporter that only remembers, and a conductor and an image service that do as told."""
import base64
import contextlib
import hashlib
import os
import threading
import time
import types

import pytest

from kodiak.common import errors
from kodiak.storage_block.agent import tasks
from kodiak.storage_block.agent.backend import Backend
from kodiak.storage_block.agent.images import Images
from kodiak.storage_block.agent.main import Agent
from kodiak.storage_block.backups.folder import FolderStore
from kodiak.storage_block.drivers.file import FileDriver
from kodiak.storage_block.exports.base import Exporter


class Conductor:
    """Stands for the RPC client of a conductor."""

    def __init__(self):
        self.generation = 1
        self.works, self.exports, self.keys = {}, {}, {}
        self.results, self.connections, self.percents, self.backends = {}, {}, [], []
        self.away = False
        self.lock = threading.Lock()
        self.number = 0

    def call(self, name, context, **args):
        if self.away:
            raise errors.Unavailable('away')
        with self.lock:
            return getattr(self, name)(**args)

    def register(self, host, backends, agent):
        self.backends = backends
        return {'generation': self.generation}

    def host_state(self, host, since):
        if since == self.generation:
            return {'generation': since}
        return {'generation': self.generation, 'work': list(self.works.values()), 'exports': list(self.exports.values())}

    def report(self, host, results, exports):
        for each in results:
            self.results[each['number']] = each
            self.works.pop(each['number'], None)
            self.generation += 1
        for each in exports:
            self.connections[each['attachment_id']] = each

    def progress(self, host, number, percent):
        self.percents.append((number, percent))
        return number in self.works

    def key(self, host, key_id):
        return {'passphrase': base64.b64encode(self.keys[key_id])}

    # What a test says

    def post(self, kind, resource_id, backend='file', **args):
        with self.lock:
            self.number += 1
            self.generation += 1
            self.works[self.number] = {'number': self.number, 'kind': kind, 'backend': backend, 'resource_id': resource_id,
                                       'args': args}
            return self.number

    def cancel(self, number):
        with self.lock:
            self.works.pop(number)
            self.generation += 1

    def export(self, attachment_id, volume_id, mode='rw', backend='file'):
        with self.lock:
            self.generation += 1
            self.exports[attachment_id] = {
                'attachment_id': attachment_id, 'generation': self.generation, 'volume_id': volume_id, 'backend': backend,
                'size': 1, 'access_mode': mode,
                'connector': {}, 'auth_username': 'user', 'auth_password': 'password', 'encrypted': False}

    def unexport(self, attachment_id):
        with self.lock:
            self.generation += 1
            del self.exports[attachment_id]


class Remembering(Exporter):
    """Exports nothing, and knows what it was told."""

    protocol = 'iSCSI'
    online_extend = True

    def __init__(self):
        self.there, self.resized, self.paused = {}, [], 0

    def start(self, lost):
        self.lost = lost

    def stop(self):
        pass

    def sync(self, exports):
        self.there = {export.attachment_id: export for export in exports}
        return {export.attachment_id: None for export in exports}

    def resize(self, exports):
        self.resized += [(export.volume_id, export.size) for export in exports]

    reopen = resize

    @contextlib.contextmanager
    def still(self):
        self.paused += 1
        yield

    def connection(self, export):
        return {'driver_volume_type': 'iscsi', 'data': {'auth_password': export.password}}


class ImageService:
    """Stands for the image client."""

    def __init__(self):
        self.data, self.images, self.downloads = {}, {}, 0

    def add(self, data, **values):
        id = f'image-{len(self.images)}'
        self.data[id] = data
        self.images[id] = {'id': id, 'status': 'active', 'disk_format': 'raw', 'container_format': 'bare', 'size': len(data),
                           'os_hash_algo': 'sha512', 'os_hash_value': hashlib.sha512(data).hexdigest(), **values}
        return self.images[id]

    def queued(self):
        id = f'image-{len(self.images)}'
        self.images[id] = {'id': id, 'status': 'queued'}
        return id

    def get(self, path):
        return self.images[path.rsplit('/', 1)[-1]]

    def request(self, method, path, data=None, json=None, stream=False, headers=None, **_options):
        id = path.split('/')[3]
        if id not in self.images:
            raise errors.NotFound('no such image')
        if method == 'PATCH':
            self.images[id].update((change['path'][1:], change['value']) for change in json)
        elif method == 'PUT':
            self.data[id] = b''.join(iter(lambda: data.read(1 << 20), b''))
            assert len(self.data[id]) == len(data)
            self.images[id]['status'] = 'active'
        else:
            self.downloads += 1
            return _Response(self.data[id])


class _Response:
    status_code = 200

    def __init__(self, data):
        self.data, self.at, self.raw = data, 0, self

    def read(self, size):
        piece = self.data[self.at:self.at + size]
        self.at += len(piece)
        return piece

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class World:
    """All of it. ``run`` posts a work and waits for what comes of it."""

    def __init__(self, folder):
        self.folder = folder
        self.conductor, self.exporter, self.image = Conductor(), Remembering(), ImageService()
        section = types.SimpleNamespace(path=str(folder / 'volumes'), driver='file', zone='nova', max_over_subscription_ratio=2.0,
                                        reserved_percentage=5)
        self.driver = FileDriver('file', section)
        other = types.SimpleNamespace(**{**vars(section), 'path': str(folder / 'other')})
        self.other = FileDriver('other', other)
        backends = [Backend('file', section, self.driver, self.exporter), Backend('other', other, self.other, self.exporter)]
        self.agent = Agent('host', self.conductor, backends, str(folder / 'state'), about={'version': '1'})
        self.images = Images(self.image, str(folder / 'images'))
        self.store = FolderStore(None, str(folder / 'backups'))
        self.agent.tasks = tasks.Tasks(
            self.agent.backends, self.images, lambda key: tasks.decoded(self.conductor.call('key', None, host='host', key_id=key)),
            self.store, str(folder / 'passing'))
        self.agent.start()
        self.until(lambda: self.conductor.backends)

    def run(self, kind, resource_id, **args):
        return self.outcome(self.conductor.post(kind, resource_id, **args))

    def outcome(self, number, timeout=60):
        self.agent.reconciler.nudge()
        self.until(lambda: number in self.conductor.results, timeout)
        return self.conductor.results[number]

    def ok(self, kind, resource_id, **args):
        outcome = self.run(kind, resource_id, **args)
        assert 'error' not in outcome, outcome
        return outcome['result']

    @staticmethod
    def until(condition, timeout=30):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, 'it does not come about'
            time.sleep(0.01)

    def path(self, name):
        return os.path.join(self.driver.folder, name)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, 'GIB', 32 << 20)
    made = World(tmp_path)
    yield made
    made.agent.stop()
