"""Versions inside a container (``X-Versions-Enabled``), each reached by ``?version-id=``.

The data of every version lies in a container that clients don't see, ``\\0versions\\0<container>``, as ``\\0<name>\\0<order>``,
where order makes the newest come first. What stands under the name in the client's own container is then a pointer: an object of no
bytes whose system metadata names the version. So nothing is copied when something is overwritten, and what is current changes in
one write.
An object that was there before versioning, or came while it was suspended, is an ordinary object with the version id ``null``. When
it becomes a version, it gets its own time for an id, and a note by which the S3 API knows it as ``null`` still; the mark that S3
leaves of a deletion while versioning is suspended has the same note.

This filter stands inside of all others that know of objects: to them a version is an object like any other.
"""
import re

import orjson

from kodiak.common.numbers import natural

from ..proxy.dbs import timestamp
from ..proxy.http import Fault, Filter, Response, error, is_true, quote
from .copying import Reader, guess
from .customer_keys import AS_STORED

ON = 'X-Container-Sysmeta-Versions-Enabled'
USED = 'X-Account-Sysmeta-Versions'
POINTER = 'X-Object-Sysmeta-Versions-Id'
MARKER = 'application/x-deleted;swift_versions_deleted=1'
EMPTY = 'd41d8cd98f00b204e9800998ecf8427e'
VERSION = re.compile(r'[0-9]{10}\.[0-9]{5}\Z')
TAIL = 17           # of a version's name: NUL and sixteen figures
HIDDEN = '\0versions\0'
NULL, NULL_NOTE = 'X-Object-Sysmeta-Versions-Null', '; null_version=yes'
GUARD = 'X-Backend-If-Not-After'
DATA_TIMES = 'X-Backend-Data-Times'
DELETES = ('X-Delete-At', 'X-Delete-After')
OVERRIDE = 'X-Backend-Container-Update-Override-'


def hidden(container):
    """The container of a container's versions."""
    return HIDDEN + container


def stored(name, version):
    """What a version is called there."""
    return f'\0{name}\0{9999999999.99999 - float(version):016.5f}'


def version_of(name):
    """``(name, version id)`` of what lies there."""
    return name[1:-TAIL], f'{9999999999.99999 - float(name[-TAIL + 1:]):016.5f}'


class Counted:
    """A body, counted as it is read."""

    def __init__(self, stream):
        self.stream, self.size = stream, 0

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = self.stream.read(size)
        self.size += len(data)
        return data


class Versioning(Filter):
    """See the module."""

    def handle(self, request):
        """Accounts and containers here, objects in :class:`_Object`."""
        split = request.split()
        if split is None or request.environ.get('kodiak.proxy') is None or request.environ.get('kodiak.reserved') or (
                request.method not in ('GET', 'HEAD', 'PUT', 'POST', 'DELETE')):
            return self.next(request)
        _, account, container, name = split
        if container is None:
            return self._account(request, split) if request.method == 'GET' else self.next(request)
        if name is None:
            return self._container(request, split)
        info = request.environ['kodiak.proxy'].infos.get(request, account, container)
        state = info['sysmeta'].get('versions-enabled')
        if state is None:
            version = request.query.get('version-id', 'null')
            if version != 'null' and self._check_id(version) and info.ok:
                raise Fault(400, 'version-id is of containers with versions')
            return self.next(request)
        return _Object(self, request, split, is_true(state)).answer()

    @staticmethod
    def _check_id(text):
        if not VERSION.match(text):
            raise Fault(400, 'Invalid version parameter')
        return text

    def inner(self, request, method, split, headers=None, body=b'', query=None, stream=None, footers=None):
        """A request for what clients don't see; ``split`` with its container and object. It may: the caller has asked."""
        path = '/'.join(('', *(part for part in split if part is not None)))
        made = request.sub(method, path, headers, body, query, authorize=False, stream=stream)
        made.environ['kodiak.reserved'] = True
        if footers is not None:
            made.environ['kodiak.footers'] = footers
        return self.next(made)

    # accounts

    def _account(self, request, split):
        answer = self.next(request)
        infos = request.environ['kodiak.proxy'].infos
        if not answer.ok or 'json' not in answer.headers.get('Content-Type', '') or 'versions' not in infos.get(
                request, split[1])['sysmeta']:
            return answer
        rows = orjson.loads(answer.read())
        if not rows:
            return answer
        query = {k: v for k, v in request.query.items() if k in ('reverse', 'delimiter')}
        names = [row.get('name', row.get('subdir')) for row in rows]
        first, last = min(names), max(names)
        # All that lie between the first name and the last one: one question, whatever the listing was asked with.
        asked = {'format': 'json', 'prefix': HIDDEN, 'marker': hidden(first)[:-1] if first else HIDDEN,
                 'end_marker': hidden(last) + '\x01'}
        query.pop('delimiter', None)
        found = self.inner(request, 'GET', split[:2], query={**asked, 'limit': '10000'})
        sizes = {row['name'][len(HIDDEN):]: row['bytes'] for row in orjson.loads(found.read())} if found.ok else {}
        for row in rows:
            if 'name' in row:
                row['bytes'] += sizes.get(row['name'], 0)
        answer.set_body(orjson.dumps(rows))
        return answer

    # containers

    def _container(self, request, split):
        method = request.method
        if method in ('PUT', 'POST'):
            return self._configure(request, split)
        if method == 'DELETE':
            return self._remove(request, split)
        if method == 'GET' and 'versions' in request.query:
            return self._versions(request, split)
        answer = self.next(request)
        if answer.ok and ON in answer.headers:
            answer.headers['X-Versions-Enabled'] = 'True' if is_true(answer.headers[ON]) else 'False'
            there = self.inner(request, 'HEAD', (split[0], split[1], hidden(split[2])))
            if there.ok:
                answer.headers['X-Container-Bytes-Used'] = int(answer.headers.get('X-Container-Bytes-Used', 0)) + int(
                    there.headers.get('X-Container-Bytes-Used', 0))
            if method == 'GET':
                self._plain(request, answer)
        return answer

    @staticmethod
    def _plain(request, answer):
        if 'json' not in answer.headers.get('Content-Type', '') or b'version_id=' not in answer.read():
            return
        rows = orjson.loads(answer.body)
        for row in rows:
            version = take_notes(row)
            if version is not None:
                row.update(version_symlink=True, symlink_path=f'{quote(request.path)}/{quote(row["name"])}?version-id={version}')
        answer.set_body(orjson.dumps(rows))

    def _configure(self, request, split):
        headers = request.headers
        given = headers.pop('X-Versions-Enabled')
        infos = request.environ['kodiak.proxy'].infos
        info = infos.get(request, split[1], split[2])
        there = info['sysmeta'].get('versions-enabled') if info.ok else None
        if headers.get('X-Container-Sysmeta-Versions-Location') and (there is not None or is_true(given)):
            raise Fault(400, 'A container has either versions or a container of versions')
        if there is not None:
            # Whoever sets a quota wants what is used to be looked at anew.
            infos.forget(split[1], hidden(split[2]))
        if given is None:
            return self.next(request)
        if is_true(given):
            if info['sysmeta'].get('versions-location') and headers.get('X-Container-Sysmeta-Versions-Location') != '':
                raise Fault(400, 'Cannot enable object versioning on a container that is already using the older versioned writes '
                                 'feature.')
            if headers.get('X-Container-Sync-To'):
                raise Fault(400, 'Cannot enable object versioning on a container that is synchronized')
            refusal = self._may(request, split, info)
            if refusal is not None:
                return refusal
            if request.method == 'POST' and not info.ok:
                return error(404)
            policy = headers.get('X-Storage-Policy') if not info.ok else request.environ['kodiak.proxy'].rings.policies[
                info['policy']].name
            box = self.inner(request, 'PUT', (split[0], split[1], hidden(split[2])), policy and {'X-Storage-Policy': policy})
            if not box.ok:
                return box
            if 'versions' not in infos.get(request, split[1])['sysmeta']:
                self.inner(request, 'POST', split[:2], {USED: 'yes'}).drain()
            headers[ON] = 'True'
        else:
            headers[ON] = 'False'
        return self.next(request)

    @staticmethod
    def _may(request, split, info, kind=None):
        authorize = request.environ.get('kodiak.authorize')
        if authorize is None:
            return None
        request.environ['kodiak.acl'] = info[kind] if kind else None
        return authorize(request)

    def _remove(self, request, split):
        infos = request.environ['kodiak.proxy'].infos
        info = infos.get(request, split[1], split[2])
        if info['sysmeta'].get('versions-enabled') is None:
            return self.next(request)
        refusal = self._may(request, split, info)
        if refusal is not None:
            return refusal
        box = (split[0], split[1], hidden(split[2]))
        there = self.inner(request, 'HEAD', box)
        if there.ok and int(there.headers.get('X-Container-Object-Count', 0)):
            return error(409, 'Delete all versions before deleting the container')
        answer = self.next(request)
        if answer.ok:
            self.inner(request, 'DELETE', box).drain()
        return answer

    # listings of versions

    def _versions(self, request, split):
        infos = request.environ['kodiak.proxy'].infos
        query = dict(request.query)
        query.pop('versions')
        after = query.pop('version_marker', None)
        if after is not None:
            if not query.get('marker'):
                raise Fault(400, 'version_marker param requires marker')
            if after != 'null':
                self._check_id(after)
        limit = natural(query.get('limit', '')) or 10000
        asked = {k: query[k] for k in ('prefix', 'delimiter', 'marker', 'end_marker', 'reverse', 'limit') if k in query}
        plain = request.sub('GET', request.path, self._times(request), query={**asked, 'format': 'json'})
        answer = self.next(plain)
        if not answer.ok:
            return answer
        current = orjson.loads(answer.read())
        notes = [(row, take_notes(row)) for row in current]
        if ON in answer.headers:
            answer.headers['X-Versions-Enabled'] = 'True' if is_true(answer.headers[ON]) else 'False'
        backwards = is_true(asked.get('reverse', ''))
        # A row's key puts names in order, and under each name the newest first.
        found = [((row['name'], '' if 'subdir' in row else f'{9999999999.99999 - _moment(row):016.5f}'), row) for row, version in (
            (row if 'name' in row else {'name': row['subdir'], **row}, version) for row, version in notes) if version is None]
        pointed = {row['name']: version for row, version in notes if version is not None}
        plain_names = {row['name'] for row, version in notes if version is None and 'name' in row}
        if infos.get(request, split[1], split[2])['sysmeta'].get('versions-enabled') is not None:
            if after is not None and request.environ.get('kodiak.source') == 'S3':
                # Swift's clients know the rest of such a page's first name as not the latest.
                self._marked(request, split, asked['marker'], pointed, plain_names)
            found += self._hidden(request, split, asked, after, backwards, pointed, plain_names)
        rows, last = [], None
        for key, row in sorted(found, key=lambda pair: pair[0], reverse=backwards):
            if 'subdir' in row:
                if key == last:
                    continue
                rows.append({'subdir': row['subdir']})
            else:
                row.setdefault('version_id', 'null')
                row.setdefault('is_latest', True)
                rows.append(row)
            last = key
        answer.set_body(orjson.dumps(rows[:limit]))
        return answer

    @staticmethod
    def _times(request):
        value = request.headers.get(DATA_TIMES)
        return {DATA_TIMES: value} if value else None

    def _marked(self, request, split, name, pointed, plain_names):
        # A page that begins in the middle of a name's versions: which of them is current does not stand on it.
        found = self.inner(request, 'GET', split[:3], query={'format': 'json', 'prefix': name, 'limit': '1'})
        for row in orjson.loads(found.read()) if found.ok else ():
            if row.get('name') == name:
                version = take_notes(row)
                plain_names.add(name) if version is None else pointed.setdefault(name, version)

    def _hidden(self, request, split, asked, after, backwards, pointed, plain_names):
        ask = {'format': 'json', 'prefix': '\0' + asked.get('prefix', '')}
        for key in ('delimiter', 'reverse', 'limit'):
            if asked.get(key):
                ask[key] = asked[key]
        marker, end = asked.get('marker'), asked.get('end_marker')
        if marker:
            if after is not None and after != 'null':
                ask['marker'] = stored(marker, after)
            elif after is not None and not backwards:
                ask['marker'] = f'\0{marker}\0'
            else:
                ask['marker'] = f'\0{marker}' + ('\0' if backwards else '\x01')
        if end:
            ask['end_marker'] = f'\0{end}' + ('\x01' if backwards else '\0')
        answer = self.inner(request, 'GET', (split[0], split[1], hidden(split[2])), self._times(request), query=ask)
        if not answer.ok:
            answer.close()
            if answer.status == 404:
                return
            raise Fault(503)
        rows = orjson.loads(answer.read())
        newest = set()
        for row in (reversed(rows) if backwards else rows):
            if 'subdir' in row:
                yield (row['subdir'][1:], ''), {'name': row['subdir'][1:], 'subdir': row['subdir'][1:]}
                continue
            name, version = version_of(row['name'])
            row['version_id'] = version
            if NULL_NOTE in row['hash']:
                row['hash'] = row['hash'].replace(NULL_NOTE, '')
                if request.environ.get('kodiak.source') == 'S3':
                    row['null_version'] = True
            # Without a current object a mark of deletion is the latest, if it is the newest; a page that begins in the
            # middle of a name's versions (marker and version_marker) has none.
            first = name not in newest and (backwards or after is None or name != asked.get('marker'))
            newest.add(name)
            row['is_latest'] = (pointed.get(name) == version if name in pointed else
                                name not in plain_names and first and row['content_type'] == MARKER)
            key = name, row['name'][-TAIL + 1:]
            row['name'] = name
            yield key, row


def _moment(row):
    import calendar
    import time
    whole, _, rest = row['last_modified'].partition('.')
    return calendar.timegm(time.strptime(whole, '%Y-%m-%dT%H:%M:%S')) + float(f'0.{rest or 0}')


def take_notes(row):
    """Make a pointer's row in a listing that of its version; its version id, or None."""
    if 'version_id=' not in row.get('hash', ''):
        return None
    etag, *notes = row['hash'].split(';')
    facts = dict(note.strip().partition('=')[::2] for note in notes)
    version, row['bytes'] = facts.pop('version_id'), int(facts.pop('version_bytes', 0))
    row['hash'] = '; '.join([etag, *(f'{name}={value}' for name, value in facts.items())])
    return version


def as_listed(headers):
    """The etag and the size that a listing shows of an object; ``headers``: of its HEAD."""
    etag = headers.get('X-Object-Sysmeta-Container-Update-Override-Etag')
    if etag is None:
        etag = headers.get('Etag', '').strip('"')
        for name, note in (('X-Object-Sysmeta-Slo-Etag', 'slo_etag'), ('X-Object-Sysmeta-S3Api-Etag', 's3_etag')):
            if name in headers:
                etag += f'; {note}={headers[name]}'
    return etag.replace(NULL_NOTE, ''), headers.get('X-Object-Sysmeta-Slo-Size', headers.get('Content-Length', '0'))


class _Object:
    """One request for an object of a container that has versions.

    :param enabled: whether what is overwritten is kept.
    """

    def __init__(self, owner, request, split, enabled):
        self.owner, self.request, self.split, self.enabled = owner, request, split, enabled
        self.infos = request.environ['kodiak.proxy'].infos

    def answer(self):
        """Answer it."""
        request, method = self.request, self.request.method
        version = request.query.get('version-id')
        if version is not None and version != 'null':
            return self._one(Versioning._check_id(version))
        if method in ('GET', 'HEAD'):
            return self._read(version)
        if method == 'POST':
            return self._post() if version is None else error(400, 'version-id is not for POST')
        if method == 'PUT':
            if version is not None:
                return error(400, 'Invalid version parameter')
            return self._put() if self.enabled else self.owner.next(request)
        if method == 'DELETE' and version is None and (self.enabled or request.environ.get('kodiak.null_mark')):
            return self._delete()
        answer = self.owner.next(request)
        if version is not None:
            answer.headers['X-Object-Version-Id'] = 'null'
        return answer

    # helpers

    def _may(self, kind):
        return self.owner._may(self.request, self.split, self.infos.get(self.request, *self.split[1:3]), kind)

    def _place(self, version):
        return self.split[0], self.split[1], hidden(self.split[2]), stored(self.split[3], version)

    def _inner(self, method, version, *args, **more):
        return self.owner.inner(self.request, method, self._place(version), *args, **more)

    def _own(self, method, headers=None):
        """A request for what stands under the name itself."""
        return self.owner.inner(self.request, method, self.split, headers)

    # reading

    def _read(self, version):
        answer = self.owner.next(self.request)
        pointed = answer.headers.get(POINTER)
        if pointed is None:
            if answer.ok:
                answer.headers['X-Object-Version-Id'] = 'null'
            return answer
        answer.close()
        if version == 'null':
            return error(404)
        found = self._follow(pointed)
        if 'X-Delete-At' in answer.headers:
            found.headers['X-Delete-At'] = answer.headers['X-Delete-At']
        found.headers['Content-Location'] = f'{quote(self.request.path)}?version-id={pointed}'
        # What is written under a condition hangs on what stands under the name.
        found.headers['X-Backend-Name-Timestamp'] = answer.headers.get('X-Backend-Data-Timestamp', '0')
        return found

    def _follow(self, version):
        request = self.request
        query = {k: v for k, v in request.query.items() if k != 'version-id'}
        headers = {name: value for name, value in request.headers.items() if name.startswith(('If-', 'X-Backend-')) or name in (
            'Range', 'X-Newest')}
        found = self._inner(request.method, version, headers, query=query or None)
        found.headers['X-Object-Version-Id'] = version
        return found

    # writing

    def _keep(self, there):
        """Make an object that is no version one: under its own time."""
        got = self._own('GET', {AS_STORED: 'true'})
        if not got.ok or POINTER in got.headers:
            got.close()
            if got.ok or got.status == 404:
                return
            raise Fault(503)
        stamp = there.headers.get('X-Timestamp', '0').split('_')[0]
        headers = {name: value for name, value in got.headers.items() if name.startswith('X-Object-') or name in (
            'Content-Type', 'Content-Encoding', 'Content-Disposition', 'Content-Length', 'X-Static-Large-Object',
            'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag')}
        headers.update({'X-Timestamp': stamp, 'Etag': got.headers.get('Etag', '').strip('"')})
        etag, size = as_listed(got.headers)
        headers.update({NULL: 'yes', OVERRIDE + 'Etag': etag + NULL_NOTE, OVERRIDE + 'Size': size})
        try:
            kept = self._inner('PUT', stamp, headers, stream=Reader(got))
        finally:
            got.close()
        if not kept.ok:
            raise Fault(412 if kept.status // 100 == 4 else 503)

    def _present(self):
        """What stands under the name, kept if it is no version: its HEAD."""
        there = self._own('HEAD').drain()
        if there.status // 100 == 5:
            raise Fault(503)
        if there.ok and POINTER not in there.headers:
            self._keep(there)
        return there

    def _point(self, version, facts, more=None):
        """Let the name stand for a version. ``facts``: its content type, etag (as listings have it) and size."""
        kind, etag, size = facts
        headers = {'Content-Type': kind, 'Content-Length': '0', 'Etag': EMPTY, POINTER: version,
                   OVERRIDE + 'Etag': f'{etag}; version_id={version}; version_bytes={size}', OVERRIDE + 'Size': '0',
                   **(more or {})}
        return self._own('PUT', headers)

    def _put(self):
        refusal = self._may('write_acl')
        if refusal is not None:
            return refusal
        request = self.request
        headers = {name: value for name, value in request.headers.items() if name not in (
            *DELETES, 'X-Newest', 'If-None-Match', GUARD)}
        if not headers.get('Content-Type') or is_true(headers.get('X-Detect-Content-Type', '')):
            headers['Content-Type'] = guess(self.split[3])
            headers.pop('X-Detect-Content-Type', None)
        there = self._present()
        only_new = request.headers.get('If-None-Match')
        if only_new is not None and only_new.strip() != '*':
            raise Fault(400, 'If-None-Match only supports *')
        if only_new is not None and there.ok:
            raise Fault(412)
        version = timestamp()
        body = Counted(request.input)
        answer = self._inner('PUT', version, {**headers, 'X-Timestamp': version}, stream=body,
                             footers=request.environ.get('kodiak.footers'))
        if answer.status != 201:
            return answer if not answer.ok else error(409)
        etag = headers.get(OVERRIDE + 'Etag') or answer.headers.get('Etag', '').strip('"')
        size = headers.get(OVERRIDE + 'Size') or body.size
        more = {name: request.headers.get(name) for name in (*DELETES, GUARD) if request.headers.get(name)}
        if only_new is not None:
            more['If-None-Match'] = '*'
        pointed = self._point(version, (headers['Content-Type'], etag, size), {**more, 'X-Timestamp': version})
        if not pointed.ok:
            self._inner('DELETE', version).drain()
            return pointed
        answer.headers['X-Object-Version-Id'] = version
        return answer

    def _post(self):
        refusal = self._may('write_acl')
        if refusal is not None:
            return refusal
        there = self._own('HEAD').drain()
        pointed = there.headers.get(POINTER)
        if pointed is None or not there.ok:
            return self.owner.next(self.request)
        headers = dict(self.request.headers.items())
        answer = self._inner('POST', pointed, {k: v for k, v in headers.items() if k not in DELETES})
        if answer.ok:
            # When it goes is the name's, not the version's.
            moved = {k: v for k, v in headers.items() if k in (*DELETES, 'Content-Type')}
            if moved or 'X-Delete-At' in there.headers:
                self._own('POST', {'Content-Length': '0', **moved}).drain()
            answer.headers['X-Object-Version-Id'] = pointed
        return answer

    def _delete(self):
        refusal = self._may('write_acl')
        if refusal is not None:
            return refusal
        version, note = timestamp(), {}
        if self.enabled:
            self._present()
        else:
            # What is no version is not kept.
            note = {NULL: 'yes', OVERRIDE + 'Etag': EMPTY + NULL_NOTE}
        mark = self._inner('PUT', version, {'Content-Type': MARKER, 'Content-Length': '0', 'X-Timestamp': version, **note})
        if mark.status != 201:
            return error(503)
        answer = self.owner.next(self.request)
        if answer.status == 412:
            self._inner('DELETE', version).drain()
            return answer
        answer.headers['X-Object-Version-Id'] = version
        answer.headers['X-Backend-Content-Type'] = MARKER
        return answer

    # one version

    def _one(self, version):
        request, method = self.request, self.request.method
        refusal = self._may('read_acl' if method in ('GET', 'HEAD') else 'write_acl')
        if refusal is not None:
            return refusal
        if request.environ.get('kodiak.authorize') is not None and not (
                request.environ.get('kodiak.owner') or request.environ.get('kodiak.override')):
            return error(403)
        if method in ('GET', 'HEAD'):
            found = self._follow(version)
            if found.ok and found.headers.get('Content-Type') == MARKER:
                found.close()
                return Response(404, b'', {'X-Object-Version-Id': version}, content_type=MARKER)
            return found
        if method == 'PUT':
            return self._restore(version)
        if method == 'DELETE':
            return self._forget(version)
        if request.environ.get('kodiak.source') == 'S3':
            return self._inner('POST', version, dict(request.headers.items()))
        return error(400, 'version-id is not for POST')

    def _restore(self, version):
        request = self.request
        if request.content_length or request.chunked:
            raise Fault(400, 'PUT with version-id has no body')
        found = self._inner('HEAD', version).drain()
        if found.status == 404 or (found.ok and found.headers.get('Content-Type') == MARKER):
            return error(404)
        if not found.ok:
            return found
        self._present()
        headers = found.headers
        answer = self._point(version, (headers.get('Content-Type', ''), *as_listed(headers)))
        if answer.ok:
            answer.headers['X-Object-Version-Id'] = version
            answer.headers['Etag'] = headers.get('Etag', '').strip('"')
        return answer

    def _forget(self, version):
        there = self._own('HEAD').drain()
        current = there.headers.get(POINTER) if there.ok else ''
        found = self._inner('HEAD', version).drain()
        if current == version:
            # The name first: cut off here, it is a version that nobody's name stands for; never a name without its data.
            gone = self._own('DELETE')
            if not gone.ok and gone.status != 404:
                return gone
            current = ''
        answer = self._inner('DELETE', version)
        answer.headers['X-Object-Version-Id'] = version
        answer.headers['X-Object-Current-Version-Id'] = 'null' if current is None else current
        if found.ok and found.headers.get('Content-Type') == MARKER:
            answer.headers['X-Backend-Content-Type'] = MARKER
        return answer
