"""The syncer: sends what changed in a container to the one that it is to be the same as (``X-Container-Sync-To``).

It reads objects as they are stored: where the proxy encrypts, containers cannot be kept the same by it.
"""
import http.client
import json
import logging
import os
import secrets
import urllib.parse

from ..backend.broker import Corrupt
from ..backend.trees import databases
from ..middleware.container_sync import Realms
from ..proxy.http import Fault, Request, quote
from ..spans import root_of
from .care import Daemon
from .inside import Inside, Unknown

LOG = logging.getLogger(__name__)
SETTINGS = ('X-Container-Sync-To', 'X-Container-Sync-Key')
SENT = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'X-Object-Manifest', 'X-Delete-At', 'Content-Language',
        'Cache-Control', 'Expires')


class Syncer(Daemon):
    """Sends the rows of containers that this node is the first to hold; the others look on."""

    name = 'syncer'

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self.inside = Inside(server)
        self.realms = Realms(conf.storage.sync_realms or None)
        self.file = os.path.join(conf.state_path, 'container-sync.json')
        self.points = self._load()
        self._roots = {}

    def _load(self):
        try:
            with open(self.file) as file:
                return json.load(file)
        except (OSError, ValueError):
            return {}

    def _save(self):
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        with open(self.file + '.new', 'w') as file:
            json.dump(self.points, file)
        os.replace(self.file + '.new', self.file)

    def once(self):
        """A pass over the containers here."""
        before, self._roots = dict(self.points), {}
        for device in self.server.devices.names():
            for part, _, path in self.fresh(
                    list(databases(f'{self.server.devices.root}/{device}', 'container')), device):
                try:
                    self._container(int(part), path)
                except Corrupt as problem:
                    self.server.brokers.damaged('container', path, problem)
                except (Unknown, OSError, http.client.HTTPException, Fault) as problem:
                    LOG.warning('A container is not kept the same now: %s', problem)
                    self.progress.count('failed_containers')
        if self.points != before:
            self._save()

    def _container(self, part, path):
        broker = self.server.brokers.get('container', path)
        if broker is None:
            return
        info = broker.info()
        root = root_of(info)
        if broker.is_deleted(info) or (root is not None and self.inside.rank(self.server.rings.container, part) != 0):
            return
        to, key = self._settings(root) if root is not None else (info['metadata'].get(name, [''])[0] for name in SETTINGS)
        if not to or not key or self.inside.rank(self.server.rings.container, part) != 0:
            return
        if root is not None:
            info.update(account=root[0], container=root[1])
        target = Target(self.realms, to, key)
        known = self.points.get(path, {})
        seq = known.get('seq', 0) if known.get('to') == to else 0
        try:
            while rows := broker.later(seq, 100):
                for row in rows:
                    if self.ending.is_set():
                        return
                    if not self._row(target, info, row):
                        return
                    seq = row[-1]
                    self.points[path] = {'to': to, 'seq': seq}
        finally:
            target.close()

    def _settings(self, root):
        """Where the objects of a shard go: its root says."""
        if root not in self._roots:
            found = self.inside.rows(*root, limit='1')
            self._roots[root] = tuple(found[1].get(name, '') if found else '' for name in SETTINGS)
        return self._roots[root]

    def _row(self, target, info, row):
        deleted, name, stamp = row[0], row[1], row[2]
        if deleted:
            status = target.ask('DELETE', name, stamp)
            good = status // 100 == 2 or status in (404, 409)
        else:
            good = self._object(target, info, name, stamp)
        self.progress.count(('deleted' if deleted else 'sent') if good else 'failed')
        return good

    def _object(self, target, info, name, stamp):
        request = Request({'REQUEST_METHOD': 'GET', 'PATH_INFO': '', 'QUERY_STRING': '', 'kodiak.proxy': self.inside.proxy,
                           'kodiak.reserved': True, 'HTTP_X_NEWEST': 'true'})
        request.path = f'/v1/{info["account"]}/{info["container"]}/{name}'
        found = self.inside.proxy.handle(request)
        if found.status == 404:
            return True         # (it has gone since; its deletion is a later row)
        if found.ok and 'X-Object-Sysmeta-Customer-Key' in found.headers:
            found.close()
            return True         # (its key is a client's: nobody can read it here)
        if not found.ok or 'X-Object-Sysmeta-Crypto-Body' in found.headers:
            found.close()
            return False
        headers = {n: v for n, v in found.headers.items() if n in SENT or n.startswith('X-Object-Meta-')}
        stamp = max(stamp, found.headers.get('X-Timestamp', stamp))
        if found.headers.get('X-Static-Large-Object', '').lower() == 'true':
            rows = json.loads(found.read())
            body = [{'data': r['data']} if 'data' in r else {
                'path': r['name'], 'size_bytes': r['bytes'], 'etag': r['hash'], **({'range': r['range']} if 'range' in r else {})}
                for r in rows]
            status = target.ask('PUT', name, stamp, headers, json.dumps(body).encode(), query='multipart-manifest=put')
        else:
            headers.update({'Content-Length': found.headers['Content-Length'], 'Etag': found.headers['Etag'].strip('"')})
            try:
                status = target.ask('PUT', name, stamp, headers, found.chunks())
            finally:
                found.close()
        return status // 100 == 2 or status == 409


class Target:
    """A container somewhere, over HTTP."""

    def __init__(self, realms, to, key):
        url, self.realm = realms.url(to)
        self.realms, self.key = realms, key
        self.url = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if self.url.scheme == 'https' else http.client.HTTPConnection
        self.connection = kind(self.url.hostname, self.url.port, timeout=30)

    def ask(self, method, name, stamp, headers=None, body=None, query=''):
        """The status of a request for one of its objects."""
        path = urllib.parse.unquote(self.url.path) + '/' + name
        headers = {**(headers or {}), 'X-Timestamp': stamp}
        if self.realm is None:
            headers['X-Container-Sync-Key'] = self.key
        else:
            nonce = secrets.token_hex(16)
            signature = self.realms.sign(self.realm, method, path, stamp, nonce, self.key)[0]
            headers['X-Container-Sync-Auth'] = f'{self.realm} {nonce} {signature}'
        try:
            self.connection.request(method, quote(path) + ('?' + query if query else ''), body, headers)
            answer = self.connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        return answer.status

    def close(self):
        """End the connection."""
        self.connection.close()
