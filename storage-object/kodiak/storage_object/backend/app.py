"""The account, container and object servers of one process: requests told apart by the depth of their path."""
import errno
import logging
import os
import sqlite3
import time

import orjson

from kodiak.common import metrics, wsgi
from kodiak.common.numbers import natural

from ..daemons import care
from ..proxy.http import Fault, Request, error
from .accounts import Accounts
from .base import JSON, answer
from .broker import Brokers
from .containers import Containers
from .devices import BadStamp, Devices, Out
from .objects import Objects
from .replication import Replication
from .updates import Local, Updater, pending, reports

LOG = logging.getLogger(__name__)
METHODS = frozenset(('GET', 'HEAD', 'PUT', 'POST', 'DELETE'))
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EUCLEAN, errno.EACCES}
BROKEN = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)


class Server:
    """The WSGI application.

    :param devices: a :class:`Devices`. :param rings: a :class:`~kodiak.storage_object.proxy.rings.Rings`. :param port: its own.
    """

    def __init__(self, devices, rings, port):
        self.devices, self.rings = devices, rings
        self.policies = {index: policy.name for index, policy in rings.policies.items()}
        self.local = Local(port)
        self.brokers = Brokers(devices, on_corrupt=self.damaged_database)
        self.updater = Updater(self)
        self.accounts, self.containers, self.objects = Accounts(self), Containers(self), Objects(self)
        self.replication = Replication(self)
        self.recon = None       # what /recon shows
        self.heal = None        # called with (kind, device, policy, partition, suffix) for what must be fetched from peers

    @classmethod
    def of(cls, conf):
        """From the configuration."""
        from ..proxy.rings import Rings
        from ..ring import Policies, Ring
        keep = os.path.join(conf.state_path, 'storage-object')
        os.makedirs(keep, exist_ok=True)
        folder = conf.storage.ring_path
        rings = Rings.load(folder, list(Policies(conf, keep)), lambda path: Ring(path, keep))
        return cls(Devices(conf.storage.devices, conf.storage.mount_check, conf.storage.reserve), rings, conf.storage.server_port)

    def digest(self, kind, account, container='', name='', policy=0):
        """The 32 hexadecimal digits that stand for a name on disk."""
        if kind == 'object':
            return self.rings.object(policy).hash_path(account, container, name)
        if kind == 'container':
            return self.rings.container.hash_path(account, container)
        return self.rings.account.hash_path(account)

    def home(self, device, policy, part):
        """The number of the fragments that a device is to have of a partition; None if it is to have none."""
        codec, ring = self.rings.codec(policy), self.rings.object(policy)
        if codec is not None and part < 1 << ring.part_power:
            for place, node in enumerate(ring.primaries(part)):
                if node['device'] == device and (node['ip'], node['port']) in self.local:
                    return place % codec.count
        return None

    def damaged_object(self, device, policy, part, suffix):
        """An object was put away because it is not what was written."""
        if self.heal is not None:
            self.heal('object', device, policy, part, suffix)

    def damaged_database(self, kind, device, path):
        """A database was put away."""
        part = path.rsplit('/', 4)[1]
        if self.heal is not None:
            self.heal(kind, device, 0, part, path.rsplit('/', 2)[1])

    def __call__(self, environ, start_response):
        started = time.perf_counter()
        kind = 'other'
        try:
            request = Request.of(environ)
            parts = request.path.split('/', 5)
            kind, made = self._route(request, parts)
        except Fault as fault:
            made = fault.response
        except BadStamp as bad:
            made = answer(400, body=str(bad).encode())
        except Out as out:
            made = answer(507, body=str(out).encode())
        except OSError as failed:
            if failed.errno not in FULL:
                LOG.exception('%s %s', environ['REQUEST_METHOD'], environ.get('PATH_INFO'))
                made = answer(500)
            else:
                LOG.error('%s %s: %s', environ['REQUEST_METHOD'], environ.get('PATH_INFO'), failed)
                made = answer(507, body=b'the device does not work')
        except sqlite3.OperationalError as failed:      # (of databases that peers bring up to date: their device is full)
            if failed.sqlite_errorcode & 0xFF in BROKEN:
                LOG.error('%s %s: %s', environ['REQUEST_METHOD'], environ.get('PATH_INFO'), failed)
                made = answer(507, body=b'the device does not work')
            else:
                LOG.exception('%s %s', environ['REQUEST_METHOD'], environ.get('PATH_INFO'))
                made = answer(500)
        except (ValueError, TypeError, KeyError) as bad:
            if environ['REQUEST_METHOD'] not in ('REPLICATE',):
                LOG.exception('%s %s', environ['REQUEST_METHOD'], environ.get('PATH_INFO'))
            made = answer(400, body=str(bad).encode('utf-8', 'replace'))
        except Exception:
            LOG.exception('%s %s', environ['REQUEST_METHOD'], environ.get('PATH_INFO'))
            made = answer(500)
        metrics.observe_request('storage_object', environ['REQUEST_METHOD'], kind, str(made.status), time.perf_counter() - started)
        return made(environ, start_response)

    def _route(self, request, parts):
        method, depth = request.method, len(parts)
        if parts[0] or depth < 2:
            return 'other', error(404)
        if depth == 2 and parts[1] == 'healthcheck':
            return 'health', answer(200, {'Content-Type': 'text/plain'}, b'OK')
        if method == 'REPLICATE' and depth > 2:
            what, rest = parts[2], '/'.join(parts[3:])
            return 'replication', self.replication.handle(request, parts[1], what, rest.split('/') if rest else [])
        if depth == 2 and parts[1] == 'recon' and self.recon is not None:
            return 'recon', answer(200, {'Content-Type': JSON}, orjson.dumps(self.recon()))
        if method not in METHODS:
            return 'other', answer(405, {'Allow': ', '.join(sorted(METHODS))})
        if depth < 4 or natural(parts[2]) is None or not all(parts[3:]):
            return 'other', answer(400, body=b'Invalid path')
        device, part, names = parts[1], parts[2], parts[3:]
        if 'HTTP_X_BACKEND_ROW' in request.environ and method in ('PUT', 'DELETE') and depth > 4:
            kind = self.containers if depth == 6 else self.accounts
            return 'row', kind.row(request, device, part, *names)
        server = (self.accounts, self.containers, self.objects)[depth - 4]
        return ('account', 'container', 'object')[depth - 4], server.handle(request, device, part, *names)


def app_factory(global_conf, **local):
    """paste application: the servers, and what looks after their devices."""
    runtime = wsgi.runtime_of(global_conf)
    server = Server.of(runtime.conf)
    runtime.extra['server'] = server
    runtime.background.append(reports(server.updater))
    daemons = make_daemons(server, runtime.conf, runtime.conf.storage.daemons)
    if daemons:
        runtime.background.append(care.Care(server, runtime.conf, daemons))
    server.recon = lambda: recon(server, runtime.conf)
    return server


def make_daemons(server, conf, names):
    """The daemons of these names; raises ValueError for one that there is not."""
    from ..daemons import auditor, expirer, reaper, reconciler, reconstructor, replicator, sharder, syncer, updater
    known = {'updater': updater.Updater, 'replicator': replicator.Replicator, 'reconstructor': reconstructor.Reconstructor,
             'auditor': auditor.Auditor, 'sharder': sharder.Sharder, 'reconciler': reconciler.Reconciler,
             'expirer': expirer.Expirer, 'reaper': reaper.Reaper, 'syncer': syncer.Syncer}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f'There is no daemon {unknown[0]!r}; there are {", ".join(known)}')
    return [known[name](server, conf) for name in names]


def recon(server, conf):
    """How the node is: progress of its daemons, devices, rows that wait for their containers, rings."""
    devices = {}
    for name in server.devices.names():
        room = os.statvfs(f'{server.devices.root}/{name}')
        devices[name] = {'size': room.f_blocks * room.f_frsize, 'free': room.f_bavail * room.f_frsize}
    count, oldest = pending(server)
    rings = {'account': server.rings.account.version, 'container': server.rings.container.version,
             **{f'object-{index}': server.rings.object(index).version for index in server.policies}}
    return {'daemons': care.read_recon(conf), 'devices': devices, 'rings': rings,
            'async_pending': {'count': count, 'oldest_seconds': oldest}}
