"""A hypervisor that only remembers, for tests of scale: a hundred hosts in one process, with guests that cost a file.

Its memory is one small JSON file an instance, so that it, like a real one, outlives its agent.
"""
import dataclasses
import os
import threading

import orjson

from kodiak.compute.agent import state
from kodiak.compute.drivers import base


class FakeDriver(base.Driver):
    """See :class:`base.Driver`. Folder: ``<state_path>/compute/fake/<host>``."""

    def __init__(self, conf, host, images, keys=None):
        super().__init__(conf, host, images, keys)
        self.folder = os.path.join(conf.state_path, 'compute', 'fake', host)
        self._lock = threading.Lock()
        self.fetched = []       # ids of images
        self._known = {}        # uuid -> {'record': dict or None, 'domain': dict or None, 'kept': bool}

    # The host

    def start(self, changed):
        os.makedirs(self.folder, exist_ok=True)
        for name in os.listdir(self.folder):
            uuid, suffix = os.path.splitext(name)
            if suffix == '.json':
                with open(os.path.join(self.folder, name), 'rb') as file:
                    self._known[uuid] = orjson.loads(file.read())

    def resources(self):
        return {'hypervisor_type': 'fake', 'hypervisor_version': 1000000, 'vcpus': 1000, 'memory_mb': 800000,
                'disk_gb': 600000, 'disk_free_gb': 600000, 'running': self._count('running'), 'uptime': ' up 1 day',
                'cpu_info': {'arch': 'x86_64', 'model': 'fake', 'vendor': 'Kodiak', 'features': [],
                             'topology': {'sockets': 1, 'cores': 1000, 'threads': 1, 'cells': 1}},
                'architectures': [['x86_64', 'fake', 'hvm']],
                'traits': ['COMPUTE_NODE', 'COMPUTE_VOLUME_ATTACH', 'COMPUTE_NET_ATTACH_INTERFACE',
                           'COMPUTE_IMAGE_TYPE_QCOW2', 'COMPUTE_IMAGE_TYPE_RAW', 'COMPUTE_SAME_HOST_COLD_MIGRATE']}

    def boot_id(self):
        return 'fake'

    def fetch(self, image):
        self.fetched.append(image.id)

    # Memory

    def _count(self, power):
        return sum(1 for known in list(self._known.values()) if known['domain'] and known['domain']['power'] == power)

    def _change(self, uuid, **values):
        known = {'record': None, 'domain': None, 'kept': False, **self._known.get(uuid, {}), **values}
        path = os.path.join(self.folder, uuid + '.json')
        with open(path + '.new', 'wb') as file:
            file.write(orjson.dumps(known))
        os.replace(path + '.new', path)
        with self._lock:
            self._known[uuid] = known

    def _power(self, uuid, power):
        self._change(uuid, domain={**self._known[uuid]['domain'], 'power': power})

    def records(self):
        return set(self._known)

    def load(self, uuid):
        known = self._known.get(uuid)
        return base.Record(**known['record']) if known and known['record'] else None

    def save(self, record):
        self._change(record.uuid, record=dataclasses.asdict(record))

    def look(self, uuid):
        domain = (self._known.get(uuid) or {}).get('domain')
        return domain and base.Found(domain['power'], frozenset(domain['ports']), frozenset(domain['volumes']))

    # Disks and domain

    def build(self, instance, record):
        return None

    def define(self, instance, record):
        domain = self._known[instance.uuid]['domain'] or {'power': 'stopped'}
        self._change(instance.uuid, domain={
            'power': domain['power'], 'ports': [port.id for port in instance.spec.ports],
            'volumes': [volume.id for volume in instance.spec.volumes]})

    def remove(self, uuid):
        path = os.path.join(self.folder, uuid + '.json')
        if os.path.exists(path):
            os.unlink(path)
        with self._lock:
            self._known.pop(uuid, None)

    # Power

    def power_on(self, instance, record):
        self._power(instance.uuid, 'running')

    def power_off(self, instance, timeout):
        self._power(instance.uuid, 'stopped')

    def pause(self, instance):
        self._power(instance.uuid, 'paused')

    def unpause(self, instance):
        self._power(instance.uuid, 'running')

    def suspend(self, instance):
        self._power(instance.uuid, 'suspended')

    def forget_suspended(self, instance):
        if self._known[instance.uuid]['domain']['power'] == 'suspended':
            self._power(instance.uuid, 'stopped')

    # Devices

    def plug(self, instance, record, ports, volumes):
        self.define(instance, record)

    def unplug(self, instance, record, ports, volumes):
        self.define(instance, record)

    def swap(self, instance, record, volume):
        domain = self._known[instance.uuid]['domain']
        self._change(instance.uuid, domain={**domain, 'volumes': [
            volume.id if found == volume.replaces else found for found in domain['volumes']]})

    # Operations

    def reboot(self, instance, record, soft):
        self._power(instance.uuid, 'running')
        return {}

    def rebuild(self, instance, record, preserve_ephemeral):
        self._power(instance.uuid, 'stopped')
        self.define(instance, record)
        return {}

    def snapshot(self, instance, record, image_id):
        import io
        data = b'fake disk of ' + instance.uuid.encode()
        self.images.upload(image_id, io.BytesIO(data), len(data), 'raw')
        return {'size': len(data), 'disk_format': 'raw'}

    def resize(self, instance, record, number):
        self._change(instance.uuid, kept=True)
        return {}

    def resize_confirm(self, instance, record):
        self._change(instance.uuid, kept=False)
        return {}

    def resize_revert(self, instance, record):
        self._change(instance.uuid, kept=False)
        return {}

    def migrate_out(self, instance, record, token_sha256):
        return {'url': f'fake://{self.host}/{instance.uuid}', 'disks': []}

    def set_password(self, instance, user, password):
        return {}

    def extend_volume(self, instance, volume_id, size):
        return {}

    def move_volume(self, instance, volume):
        return {}

    # Questions

    def console_output(self, uuid, length):
        text = f'FAKE CONSOLE OUTPUT of {uuid}\nANOTHER\nLAST LINE\n'
        return text if length is None else text[-length:]

    def console_address(self, uuid, kind):
        found = self.look(uuid)
        return state.ConsoleAddress('127.0.0.1', 6901) if found and found.power == 'running' else None

    def diagnostics(self, uuid):
        found = self.look(uuid)
        if found is None:
            raise base.Fault('hypervisor', 'The domain of the instance is not there.')
        return {'state': 'running' if found.power == 'running' else 'shutdown', 'driver': 'fake', 'hypervisor': 'fake',
                'hypervisor_os': 'fake', 'uptime': 0, 'config_drive': False, 'num_cpus': 1,
                'num_nics': len(found.ports), 'num_disks': 1, 'cpu_details': [], 'nic_details': [],
                'disk_details': [], 'memory_details': {'maximum': 0, 'used': 0}}
