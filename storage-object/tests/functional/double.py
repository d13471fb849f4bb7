"""A stand-in for the account, container and object servers: one process, one dictionary a device, the servers' protocol."""
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse

from kodiak.storage_object.proxy import http as wire
from kodiak.storage_object.proxy import ranges


class Device:
    """What one device holds: path -> record."""

    def __init__(self):
        self.accounts, self.containers, self.objects, self.held = {}, {}, {}, {}
        self.lock = threading.RLock()


class Servers:
    """A set of devices behind one port; ``failing`` names devices that answer 507."""

    def __init__(self, devices=4, port=0):
        self.devices = {f'd{number}': Device() for number in range(devices)}
        self.failing = set()
        servers = self

        class Handler(_Handler):
            world = servers
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def ring(self):
        return Ring([{'id': index, 'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': self.port, 'device': name, 'weight': 1,
                      'meta': '', 'replication_ip': '127.0.0.1', 'replication_port': self.port}
                     for index, name in enumerate(self.devices)])


class Ring:
    replica_count = 3

    def __init__(self, devices):
        self.devices = devices

    def reload_if_changed(self):
        return False

    def get_part(self, account, container=None, obj=None):
        path = '/'.join(['', account] + [x for x in (container, obj) if x is not None])
        return hashlib.md5(path.encode('utf-8', 'surrogateescape')).digest()[0]

    def primaries(self, part):
        return [self.devices[(part + i) % len(self.devices)] for i in range(3)]

    def handoffs(self, part):
        return iter([self.devices[(part + i) % len(self.devices)] for i in range(3, len(self.devices))])


class Policy:
    aliases, deprecated, codec = [], False, None

    def __init__(self, ring, index=0, name='gold'):
        self.ring, self.index, self.name, self.default = ring, index, name, index == 0


def _iso(stamp):
    moment = float(stamp.split('_')[0])
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment)) + f'.{round(moment % 1 * 1e6):06d}'


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    world = None

    def log_message(self, *args):
        pass

    def _body(self):
        if self.headers.get('Transfer-Encoding', '').lower() == 'chunked':
            parts = []
            while size := int(self.rfile.readline().split(b';')[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b''.join(parts), True
        length = int(self.headers.get('Content-Length') or 0)
        body = self.rfile.read(length)
        return body, len(body) == length

    def _say(self, status, headers=(), body=b''):
        self.send_response_only(status)
        for name, value in dict(headers).items():
            if value is not None:
                self.send_header(name, value)
        if status not in (204, 304) and 'Content-Length' not in dict(headers):
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD' and status not in (204, 304):
            self.wfile.write(body)

    def handle_any(self):
        body, whole = self._body()
        if not whole:
            self.close_connection = True
            return None
        path, _, query = self.path.partition('?')
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        parts = urllib.parse.unquote(path).split('/', 5)
        device, rest = parts[1], parts[3:]
        if device in self.world.failing:
            return self._say(507, body=b'not mounted')
        device = self.world.devices[device]
        self.meta = {n.title(): v for n, v in self.headers.items()}
        kind = ('account', 'container', 'object')[len(rest) - 1]
        with device.lock:
            return getattr(self, f'{kind}_{self.command}')(device, body, *rest)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def _kept(self, prefix, more=()):
        return {n: v for n, v in self.meta.items() if n.startswith((f'X-{prefix}-Meta-', f'X-{prefix}-Sysmeta-')) or n in more}

    @staticmethod
    def _merge(old, new):
        old.update(new)
        for name in [n for n, v in old.items() if v == '']:
            del old[name]

    def _page(self, rows):
        """Rows (sorted dicts with name) cut by marker, prefix, delimiter and limit."""
        q = self.query
        prefix, delimiter = q.get('prefix', ''), q.get('delimiter', '')
        if 'path' in q:
            prefix, delimiter = (q['path'].rstrip('/') + '/' if q['path'] else ''), '/'
        reverse = wire.is_true(q.get('reverse', ''))
        limit = int(q.get('limit') or 10000)
        marker, end = q.get('marker', ''), q.get('end_marker', '')
        if reverse:
            marker, end = end, marker
        out, seen = [], set()
        for row in sorted(rows, key=lambda r: r['name'].encode(), reverse=reverse):
            name = row['name']
            if not name.startswith(prefix):
                continue
            if delimiter and (cut := name.find(delimiter, len(prefix))) >= 0 and not ('path' in q and cut == len(name) - 1):
                sub = name[:cut + len(delimiter)]
                if sub in seen or (marker and not reverse and sub <= marker) or (end and sub >= end):
                    continue
                seen.add(sub)
                if 'path' not in q:
                    out.append({'subdir': sub})
                continue
            if (marker and name <= marker) or (end and name >= end):
                continue
            if 'path' in q and name == prefix:
                continue
            out.append({k: v for k, v in row.items() if not k.startswith('_')})
        return out[:limit]

    # accounts

    def account_PUT(self, device, body, account):
        stamp = self.meta['X-Timestamp']
        fresh = account not in device.accounts
        record = device.accounts.setdefault(account, {'stamp': stamp, 'meta': {}})
        self._merge(record['meta'], self._kept('Account'))
        self._say(201 if fresh else 202)

    def account_POST(self, device, body, account):
        if account not in device.accounts:
            return self._say(404)
        self._merge(device.accounts[account]['meta'], self._kept('Account'))
        return self._say(204)

    def account_DELETE(self, device, body, account):
        return self._say(204 if device.accounts.pop(account, None) else 404)

    def account_GET(self, device, body, account):
        record = device.accounts.get(account)
        if record is None:
            return self._say(404)
        rows, objects, size = [], 0, 0
        boxes = {key: box for each in self.world.devices.values() for key, box in list(each.containers.items())}
        for (a, name), box in boxes.items():
            if a == account:
                used = sum(o['bytes'] for o in box['rows'].values())
                rows.append({'name': name, 'count': len(box['rows']), 'bytes': used, 'last_modified': _iso(box['stamp'])})
                objects, size = objects + len(box['rows']), size + used
        body = json.dumps(self._page(rows)).encode()
        headers = {'X-Account-Container-Count': len(rows), 'X-Account-Object-Count': objects, 'X-Account-Bytes-Used': size,
                   'X-Timestamp': record['stamp'], 'X-Put-Timestamp': record['stamp'], **record['meta'],
                   'Content-Type': 'application/json'}
        return self._say(200, headers, body)

    account_HEAD = account_GET

    # containers

    ACLS = ('X-Container-Read', 'X-Container-Write', 'X-Container-Sync-Key', 'X-Container-Sync-To', 'X-Versions-Location')

    def container_PUT(self, device, body, account, container):
        key, stamp = (account, container), self.meta['X-Timestamp']
        fresh = key not in device.containers
        record = device.containers.setdefault(key, {'stamp': stamp, 'meta': {}, 'rows': {}, 'policy': self.meta.get(
            'X-Backend-Storage-Policy-Index', self.meta.get('X-Backend-Storage-Policy-Default', '0'))})
        if 'X-Backend-Storage-Policy-Index' in self.meta and self.meta['X-Backend-Storage-Policy-Index'] != record['policy']:
            return self._say(409)
        self._merge(record['meta'], self._kept('Container', self.ACLS))
        return self._say(201 if fresh else 202)

    def container_POST(self, device, body, account, container):
        record = device.containers.get((account, container))
        if record is None:
            return self._say(404)
        self._merge(record['meta'], self._kept('Container', self.ACLS))
        record['stamp'] = self.meta['X-Timestamp']
        return self._say(204)

    def container_DELETE(self, device, body, account, container):
        record = device.containers.get((account, container))
        if record is None:
            return self._say(404)
        if record['rows']:
            return self._say(409)
        del device.containers[account, container]
        return self._say(204)

    def container_GET(self, device, body, account, container):
        record = device.containers.get((account, container))
        if record is None:
            return self._say(404)
        rows = record['rows'].values()
        page = [{**row, 'last_modified': row['data'] if 'X-Backend-Data-Times' in self.headers else row['last_modified']}
                if 'data' in row else row for row in (self._page(rows) if self.command == 'GET' else ())]
        body = json.dumps(page).encode() if self.command == 'GET' else b''
        headers = {'X-Container-Object-Count': len(rows), 'X-Container-Bytes-Used': sum(r['bytes'] for r in rows),
                   'X-Timestamp': record['stamp'], 'X-Put-Timestamp': record['stamp'],
                   'X-Backend-Storage-Policy-Index': record['policy'], **record['meta'], 'Content-Type': 'application/json'}
        return self._say(200 if self.command == 'GET' else 204, headers, body)

    container_HEAD = container_GET

    # objects

    def _row(self, account, container, name, record):
        hosts = self.headers.get('X-Container-Device', '').split(',')
        for each in self.world.devices.values() if hosts else ():
            box = each.containers.get((account, container))
            if box is None:
                continue
            if record is None:
                box['rows'].pop(name, None)
            else:
                meta = record['meta']
                kind, _, override = meta.get('Content-Type', '').partition(';swift_bytes=')
                size = meta.get('X-Object-Sysmeta-Container-Update-Override-Size', override or str(len(record['body'])))
                etag = meta.get('X-Object-Sysmeta-Container-Update-Override-Etag', record['etag'])
                box['rows'][name] = {'name': name, 'hash': etag,
                                     'bytes': int(size), 'content_type': wire.from_wsgi(kind),
                                     'last_modified': _iso(record['stamp']), 'data': _iso(record['data'])}

    KEEP = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'X-Delete-At', 'X-Object-Manifest', 'X-Static-Large-Object',
            'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag')

    def object_PUT(self, device, body, account, container, name):
        key, stamp = (account, container, name), self.meta['X-Timestamp']
        old = device.objects.get(key)
        if old and old['stamp'] >= stamp:
            return self._say(409, {'X-Backend-Timestamp': old['stamp']})
        if self._is_refused(old):
            return self._say(412, {'X-Backend-Timestamp': old['stamp']})
        if after := int(self.meta.pop('X-Backend-Footer-Size', 0)):
            # The Etag is counted here all the same; what the client said it is stays to be compared.
            self.meta.update((name, value) for name, value in json.loads(body[-after:]).items() if name != 'Etag')
            body = body[:-after]
        etag = hashlib.md5(body).hexdigest()
        if self.meta.get('Etag') and self.meta['Etag'] != etag:
            return self._say(422)
        meta = {n: v for n, v in self.meta.items()
                if n in self.KEEP or n.startswith(('X-Object-Meta-', 'X-Object-Sysmeta-', 'X-Object-Transient-Sysmeta-'))}
        overrides = {n.replace('X-Backend-', 'X-Object-Sysmeta-'): v for n, v in self.meta.items()
                     if n.startswith('X-Backend-Container-Update-Override-')}
        meta.update(overrides)
        record = {'stamp': stamp, 'data': stamp, 'body': body, 'etag': etag, 'meta': meta}
        if self._has_condition():
            return self._hold(device, key, record)
        device.objects[key] = record
        self._row(account, container, name, record)
        return self._say(201, {'Etag': etag})

    def _has_condition(self):
        return 'If-None-Match' in self.meta or 'X-Backend-If-Not-After' in self.meta

    def _is_refused(self, old):
        return bool(old and self.meta.get('If-None-Match') == '*' and 'body' in old) or self._is_later(old)

    def _hold(self, device, key, record):
        other = device.held.get(key)
        if other is not None and other['stamp'] != record['stamp']:
            return self._say(423, {'X-Backend-Timestamp': other['stamp']})
        device.held[key] = record
        return self._say(201, {'X-Backend-Timestamp': device.objects.get(key, {}).get('stamp', '')})

    def _settle(self, device, key, what):
        held, old = device.held.get(key), device.objects.get(key)
        if what != 'commit':
            if held is not None and held['stamp'] == self.meta['X-Timestamp']:
                del device.held[key]
            return self._say(204)
        if held is None or held['stamp'] != self.meta['X-Timestamp']:
            return self._say(410)
        if self._is_refused(old):
            return self._say(412, {'X-Backend-Timestamp': old['stamp']})
        device.objects[key] = held
        self._row(*key, held if 'body' in held else None)
        if 'body' in held:
            return self._say(201, {'Etag': held['etag']})
        return self._say(204 if old and 'body' in old else 404)

    def object_POST(self, device, body, account, container, name):
        if 'X-Backend-Held' in self.meta:
            return self._settle(device, (account, container, name), self.meta['X-Backend-Held'])
        record = device.objects.get((account, container, name))
        if not record or 'body' not in record or self._expired(record):
            return self._say(404)
        kept = {n: v for n, v in record['meta'].items() if n.startswith('X-Object-Sysmeta-') or n in (
            'Content-Type', 'X-Static-Large-Object')}
        kept.update({n: v for n, v in self.meta.items() if n in self.KEEP or n.startswith((
            'X-Object-Meta-', 'X-Object-Transient-Sysmeta-'))})
        kept = {n: v for n, v in kept.items() if v != '' or n.startswith('X-Object-Meta-')}
        record['meta'], record['stamp'] = kept, self.meta['X-Timestamp']
        self._row(account, container, name, record)
        return self._say(202)

    def object_DELETE(self, device, body, account, container, name):
        key, stamp = (account, container, name), self.meta['X-Timestamp']
        record = device.objects.get(key)
        if record and record['stamp'] > stamp:
            return self._say(409)
        if self._has_condition():
            if self._is_later(record):
                return self._say(412, {'X-Backend-Timestamp': record['stamp']})
            return self._hold(device, key, {'stamp': stamp, 'data': stamp})
        there = record and 'body' in record and not self._expired(record)
        device.objects[key] = {'stamp': stamp, 'data': stamp}
        self._row(account, container, name, None)
        return self._say(204 if there else 404, {'X-Backend-Timestamp': stamp})

    def _is_later(self, record):
        limit = self.meta.get('X-Backend-If-Not-After')
        return bool(limit and record and record['data'] > limit)

    @staticmethod
    def _expired(record):
        at = record['meta'].get('X-Delete-At')
        return at and int(at) <= time.time()

    def object_GET(self, device, body, account, container, name):
        record = device.objects.get((account, container, name))
        if not record or 'body' not in record or self._expired(record):
            return self._say(404, {'X-Backend-Timestamp': record['stamp']} if record else {})
        stamp = record['stamp']
        data, modified = record['body'], time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime(-(-float(stamp) // 1)))
        headers = {'Etag': f'"{record["etag"]}"', 'Last-Modified': modified, 'X-Timestamp': stamp, 'X-Backend-Timestamp': stamp,
                   'X-Backend-Data-Timestamp': record['data'], **dict(record['meta'].items())}
        request = wire.Request({'REQUEST_METHOD': self.command, 'PATH_INFO': '/', **{
            wire.EnvironHeaders.key(n): v for n, v in self.meta.items()}})
        etag = record['etag']
        for header in (self.meta.get('X-Backend-Etag-Is-At') or '').split(','):
            if header.strip().title() in record['meta']:
                etag = record['meta'][header.strip().title()]
                break
        status = wire.precondition(request, etag, wire.parse_date(modified))
        if status:
            return self._say(status, headers if status == 304 else {**headers, 'Content-Length': '0'})
        if (asked := self.meta.get('Range')) and self.command == 'GET':
            spans = ranges.parse(asked, len(data))
            if spans == []:
                return self._say(416, {**headers, 'Content-Range': f'bytes */{len(data)}'})
            if spans and re.fullmatch(r'bytes=[0-9-]*', asked):
                start, end = spans[0]
                return self._say(206, {**headers, 'Content-Range': f'bytes {start}-{end - 1}/{len(data)}'}, data[start:end])
        return self._say(200, {**headers, 'Content-Length': str(len(data))}, data)

    object_HEAD = object_GET
