"""Telling containers of objects, and accounts of containers: at once, and again until it has arrived.

What a container server did not take stands in a file of ``async_pending/<suffix>/`` on the object's device: a JSON object with
``account``, ``container`` and ``row``. What an account has not been told stands in the container's own database: ``reported``
differs from what it says now.
"""
import logging
import os
import socket
import threading
import time

import orjson

from kodiak.common import periodic

from ..proxy import backend as wire
from ..proxy.http import to_wsgi, unquote
from ..spans import DEPTH, root_of, split
from .broker import Brokers, Corrupt
from .devices import Out, sync_folder
from .shards import Moved

LOG = logging.getLogger(__name__)
PENDING = 'async_pending'


def state(info):
    """What an account is told of a container; kept in ``reported`` once it has been told."""
    return f'{info["put_stamp"]} {info["delete_stamp"]} {info["count"]} {info["bytes"]} {info["policy"]}'


class Local:
    """Which addresses are this server's own."""

    def __init__(self, port):
        self.port, self._known = port, {}

    def __contains__(self, address):
        host, port = address
        if port != self.port:
            return False
        known = self._known.get(host)
        if known is None:
            known = self._known[host] = self._mine(host)
        return known

    @staticmethod
    def _mine(host):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((host, 0))
                return True
            except OSError:
                return False


def address(host):
    """``(ip, port)`` of ``ip:port``."""
    ip, _, port = host.rpartition(':')
    return ip.strip('[]'), int(port)


class Updater:
    """Tells others; its thread tells again.

    :param server: the :class:`~kodiak.storage_object.backend.app.Server`.
    """

    def __init__(self, server):
        self.server = server
        self.client = wire.Client(wire.Pool(connect_timeout=0.5, node_timeout=2), wire.Nodes())
        self._dirty = set()
        self._lock = threading.Lock()

    def _node(self, host, device):
        ip, port = address(host)
        return {'ip': ip, 'port': port, 'device': device}

    # Containers

    def tell_containers(self, device_path, hosts, devices, part, account, container, row, root=None):
        """Tell the container servers that a request named; what does not arrive is kept in a file.

        Where one says that the row belongs to a shard, that is told.

        :param root: ``(account, container)`` of the object, if that container is a shard.
        """
        waiting, failed, moved = [], False, None
        nodes = [self._node(host, device) for host, device in zip(hosts, devices, strict=False)]
        for node in nodes:
            if (node['ip'], node['port']) in self.server.local:
                continue
            if self.client.nodes.out(node):
                failed = True
                continue
            head = self._row_head(node, part, account, container, row)
            connection = self.client.connect(node, head)
            if connection is None:
                failed = True
            else:
                waiting.append((node, connection, head))
        for node in nodes:
            if (node['ip'], node['port']) in self.server.local:
                status, target = self._here(node, part, account, container, row)
                failed, moved = failed or (status // 100 != 2 and target is None), moved or target
        for node, connection, head in waiting:
            reply = self.client.answer(connection, node, 'PUT', lambda n=node, h=head: self.client.connect(n, h))
            status, target = self._told(reply)
            failed, moved = failed or (status // 100 != 2 and target is None), moved or target
        if moved is not None:
            failed |= not self.send_row(*moved, row)
        if failed:
            self.keep(device_path, *(root or (account, container)), row)

    def _here(self, node, part, account, container, row):
        try:
            return self.server.containers.tell(node['device'], part, account, container, row, True), None
        except Moved as moved:
            return 301, split(moved.target.name)
        except (Out, OSError) as error:
            LOG.warning('%s: %s', node['device'], error)
            return 507, None

    @staticmethod
    def _told(reply):
        """``(status, (account, container) that a row belongs to)`` of an answer."""
        if reply is None:
            return 503, None
        reply.close()
        parts = reply.headers.get('Location', '').split('/', 3)
        return reply.status, (unquote(parts[1]), unquote(parts[2])) if reply.status == 301 and len(parts) == 4 else None

    @staticmethod
    def _row_head(node, part, account, container, row):
        deleted, name, stamp, changed, size, etag, kind, policy = row
        headers = {'X-Backend-Row': '1', 'X-Backend-Accept-Redirect': 'true', 'X-Timestamp': stamp,
                   'X-Backend-Changed-Timestamp': changed,
                   'X-Backend-Storage-Policy-Index': policy, 'Content-Length': '0'}
        if not deleted:
            headers.update({'X-Size': size, 'X-Etag': etag, 'X-Content-Type': to_wsgi(kind)})
        return wire.head_of('DELETE' if deleted else 'PUT', f'/{node["device"]}/{part}/{account}/{container}/{name}', headers)

    def keep(self, device_path, account, container, row):
        """Keep an update for later, on the device of its object."""
        digest = self.server.digest('object', account, container, row[1])
        folder = f'{device_path}/{PENDING}/{digest[-3:]}'
        name = f'{digest}-{max(row[2], row[3])}-{row[0]}'
        os.makedirs(folder, exist_ok=True)
        part = self.server.devices.temporary(device_path)
        os.makedirs(os.path.dirname(part), exist_ok=True)
        with open(part, 'wb') as file:
            file.write(orjson.dumps({'account': account, 'container': container, 'row': row}))
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, f'{folder}/{name}')
        sync_folder(folder)

    def send_row(self, account, container, row, depth=DEPTH):
        """Tell all primary container servers, of the shard that the row belongs to. True if all have it."""
        ring = self.server.rings.container
        part = ring.get_part(account, container)
        arrived, moved = True, None
        for node in ring.primaries(part):
            if (node['ip'], node['port']) in self.server.local:
                status, target = self._here(node, part, account, container, row)
            else:
                head = self._row_head(node, part, account, container, row)
                connection = self.client.connect(node, head)
                status, target = self._told(connection and self.client.answer(connection, node, 'PUT',
                                                                              lambda n=node, h=head: self.client.connect(n, h)))
            arrived, moved = arrived and status // 100 == 2, moved or target
        # Once a container is sharded, what counts is what its shard has: the others of its servers move what they took.
        return self.send_row(*moved, row, depth - 1) if moved and depth else arrived

    # Accounts

    def tell_account(self, info, host, device, part):
        """Tell one account server of a container. Returns the status."""
        node = self._node(host, device)
        if (node['ip'], node['port']) in self.server.local:
            try:
                return self.server.accounts.tell(device, part, info['account'], info['container'], info['put_stamp'],
                                                 info['delete_stamp'], info['count'], info['bytes'], info['policy'], self._now())
            except (Out, OSError) as error:
                LOG.warning('%s: %s', device, error)
                return 507
        headers = {'X-Backend-Row': '1', 'X-Timestamp': self._now(), 'X-Put-Timestamp': info['put_stamp'],
                   'X-Delete-Timestamp': info['delete_stamp'], 'X-Object-Count': info['count'], 'X-Bytes-Used': info['bytes'],
                   'X-Backend-Storage-Policy-Index': info['policy'], 'Content-Length': '0'}
        reply = self.client.ask(node, 'PUT', part, f'/{info["account"]}/{info["container"]}', headers)
        if reply is None:
            return 503
        reply.close()
        return reply.status

    @staticmethod
    def _now():
        return f'{time.time():016.5f}'

    def report(self, path):
        """Tell the accounts of a container's database what they have not been told. False if one could not be told."""
        broker = self.server.brokers.get('container', path)
        if broker is None:
            return True
        info = broker.info()
        now = state(info)
        if info['reported'] == now:
            return True
        root = root_of(info)
        if root is not None:
            if info['sharding'] != 'sharded' and not self._report_shard(broker, info, root):
                return False
            info.update(count=0, bytes=0)       # (what it has is counted in its root)
        ring = self.server.rings.account
        part = ring.get_part(info['account'])
        told = [self.tell_account(info, f'{node["ip"]}:{node["port"]}', node['device'], part) for node in ring.primaries(part)]
        # An account that is not there need not be told: it was deleted, or its peers give it the row.
        if all(status // 100 == 2 or status == 404 for status in told) and any(status // 100 == 2 for status in told):
            with broker.writing() as connection:
                connection.execute('UPDATE info SET reported = ?', (now,))
            return True
        return False

    def _report_shard(self, broker, info, root):
        own = broker.table().own
        own = own._replace(objects=info['count'], bytes=info['bytes'], meta_stamp=self._now())
        told = self.tell_root(*root, [own], known=True)
        return all(status // 100 == 2 or status == 404 for status in told)

    def tell_root(self, account, container, ranges, known=False):
        """Tell the primary servers of a sharded container of its shards. Returns their statuses.

        :param known: the counts alone, of shards that it has.
        """
        ring, told = self.server.rings.container, []
        part = ring.get_part(account, container)
        digest = self.server.digest('container', account, container)
        body = orjson.dumps({'ranges': [each.wire() for each in ranges], 'known': known})
        headers = {'X-Backend-Record-Type': 'shard', 'X-Timestamp': self._now(), 'Content-Length': len(body)}
        for node in ring.primaries(part):
            if (node['ip'], node['port']) in self.server.local:
                try:
                    path = Brokers.path(self.server.devices.path(node['device']), 'container', part, digest)
                    told.append(self.server.containers.take_ranges(path, ranges, known))
                except (Out, OSError) as error:
                    LOG.warning('%s: %s', node['device'], error)
                    told.append(507)
                continue
            reply = self.client.ask(node, 'PUT', part, f'/{account}/{container}', headers, body=body)
            if reply is not None:
                reply.close()
            told.append(reply.status if reply is not None else 503)
        return told

    # Again

    def look(self, path):
        """A container has changed: its account is to be told soon."""
        with self._lock:
            self._dirty.add(path)

    def changed(self):
        """The containers that changed since the last call."""
        with self._lock:
            found, self._dirty = self._dirty, set()
        return found

    def report_changed(self):
        """Report all that changed; those that could not be stay to be reported."""
        for path in self.changed():
            try:
                if not self.report(path):
                    self.look(path)
            except Corrupt as error:
                self.server.brokers.damaged('container', path, error)
            except Exception:
                LOG.exception('The account of %s was not told', path)
                self.look(path)


def pending(server):
    """``(number, age in seconds of the oldest)`` of the rows that wait for their containers."""
    count, oldest = 0, None
    for device in server.devices.names():
        top = f'{server.devices.root}/{device}/{PENDING}'
        for suffix in os.listdir(top) if os.path.isdir(top) else ():
            for name in os.listdir(f'{top}/{suffix}'):
                count += 1
                stamp = name.split('-')[1]
                oldest = min(oldest or stamp, stamp)
    return count, time.time() - float(oldest[:16]) if oldest else 0


def reports(updater):
    """The thread that tells accounts of the containers that this process changed."""
    return periodic.Periodic('reports', updater.report_changed, 0.5)
