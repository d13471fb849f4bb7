"""What daemons ask of other devices of their rings, and how they fetch what was put away here."""
import logging
import os
import threading

import orjson

from ..backend import diskfile
from ..backend.broker import Corrupt
from ..backend.devices import Out
from ..proxy import backend as wire
from .care import Daemon

LOG = logging.getLogger(__name__)
HEAL = 'heal'


class Failed(Exception):
    """A peer did not answer, or not well."""


class Asking(Daemon):
    """A daemon that asks other devices of its rings."""

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self.client = wire.Client(wire.Pool(connect_timeout=1, node_timeout=60), wire.Nodes())

    def ask(self, node, what, *rest, body=None):
        """What a peer answers; None for 404. Raises :class:`Failed`."""
        if (node['ip'], node['port']) in self.server.local:
            try:
                return self.server.replication.call(node['device'], what, rest, body)
            except (Out, OSError, Corrupt) as error:
                raise Failed(str(error)) from error
        data = orjson.dumps(body) if body is not None else b''
        head = wire.head_of('REPLICATE', '/' + '/'.join([node['device'], what, *map(str, rest)]), {'Content-Length': len(data)})
        connection = self.client.connect(node, head, data)
        reply = connection and self.client.answer(connection, node, 'REPLICATE', lambda: self.client.connect(node, head, data))
        if not reply:
            raise Failed('no answer')
        try:
            found = reply.read()
        except wire.ERRORS as error:
            raise Failed(str(error)) from error
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise Failed(f'{reply.status} {found[:200]!r}')
        return orjson.loads(found)

    def mine(self, node, device):
        """Whether a node of a ring is a device of this server."""
        return node['device'] == device and (node['ip'], node['port']) in self.server.local


class Peers(Asking):
    """A daemon that brings devices together, and has a thread that heals what was found damaged."""

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self._healer = threading.Thread(target=self._healing, name='healer', daemon=True)
        server.heal = self.heal

    def start(self):
        """As of all, and the thread that heals."""
        super().start()
        self._healer.start()

    def send(self, node, path, policy, part, digest, name):
        """Send a peer a file."""
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            if (node['ip'], node['port']) in self.server.local:
                try:
                    status = self.server.replication.file(node['device'], policy, part, digest, name, file.read, size)
                except (Out, OSError) as error:
                    raise Failed(str(error)) from error
            else:
                target = f'/{node["device"]}/file/{policy}/{part}/{digest}/{name}'
                connection = self.client.connect(node, wire.head_of('REPLICATE', target, {'Content-Length': size}))
                if connection is None:
                    raise Failed('no answer')
                try:
                    connection.sock.sendfile(file)
                except OSError as error:
                    connection.close()
                    raise Failed(str(error)) from error
                reply = self.client.answer(connection, node, 'REPLICATE')
                if reply is None:
                    raise Failed('no answer')
                reply.close()
                status = reply.status
        if status == 422:
            raise diskfile.Corrupt('the peer says so')
        if status // 100 != 2:
            raise Failed(str(status))
        self.progress.count('sent')

    def _could_not(self, node, error):
        self.progress.count('unanswered')
        LOG.info('%s:%s/%s was not brought up to date: %s', node['ip'], node['port'], node['device'], error)

    @staticmethod
    def _remove_empty(top):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass

    # Healing

    def heal(self, kind, device, policy, part, suffix):
        """Have peers send again what was put away here: noted on the device, whichever process finds it, until it is done."""
        folder = f'{self.server.devices.root}/{device}/{HEAL}'
        try:
            os.makedirs(folder, exist_ok=True)
            with open(f'{folder}/{kind}-{policy}-{part}-{suffix}', 'w'):
                pass
        except OSError as error:
            LOG.warning('%s: %s', folder, error)        # the peers find out by themselves, in their next pass

    def _healing(self):
        while not self.ending.wait(0.5):
            try:
                self.heal_noted()
            except Exception:
                LOG.exception('Healing goes on later')

    def heal_noted(self):
        """Fetch what was noted."""
        for device in self.server.devices.names():
            folder = f'{self.server.devices.root}/{device}/{HEAL}'
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                kind, policy, part, suffix = name.split('-')
                if self.heals(kind, int(policy)) and self.fetch(kind, device, int(policy), part, suffix):
                    os.unlink(f'{folder}/{name}')
                    self.progress.count('healed')

    def heals(self, kind, policy):
        """Whether such things are this daemon's."""
        return kind != 'object' or self.server.rings.codec(policy) is None

    def fetch(self, kind, device, policy, part, suffix):
        """Get what is below a suffix from peers. True if that is done."""
        raise NotImplementedError
