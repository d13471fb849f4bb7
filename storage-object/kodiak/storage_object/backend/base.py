"""What the account, container and object servers share: answers, a device's folder, the databases."""
import datetime
import functools
import sqlite3

import orjson

from kodiak.common.numbers import natural

from ..proxy.http import Response, from_wsgi, is_true, to_wsgi
from .broker import ZERO, Brokers, Corrupt
from .devices import Out, stamp_of

JSON = 'application/json; charset=utf-8'
EPOCH = datetime.datetime(1970, 1, 1)


def answer(status, headers=None, body=b''):
    """A response; ``headers`` without those that are None."""
    return Response(status, body, {n: v for n, v in (headers or {}).items() if v is not None})


class Part:
    """A part of a file, for servers without a wrapper of their own."""

    def __init__(self, file, length):
        self.file, self.length = file, length

    def __iter__(self):
        while self.length and (data := self.file.read(min(262144, self.length))):
            self.length -= len(data)
            yield data

    def close(self):
        """Let go of it."""
        self.file.close()


@functools.lru_cache(65536)
def _second(text):
    return (EPOCH + datetime.timedelta(seconds=int(text))).isoformat()


def iso(stamp):
    """``2024-01-31T12:00:00.123450`` of a timestamp."""
    return f'{_second(stamp[:10])}.{stamp[11:16]}0'


def kept(request, kind, more, stamp):
    """The metadata that a request sets: ``{name: [value, timestamp]}``."""
    prefixes = (f'X-{kind}-Meta-', f'X-{kind}-Sysmeta-')
    return {name: [from_wsgi(value), stamp] for name, value in request.headers.items() if name.startswith(prefixes) or name in more}


def shown(info):
    """The headers of metadata that is set."""
    return {name: to_wsgi(value) for name, (value, _) in info['metadata'].items() if value != ''}


class Databases:
    """Requests to the databases of one kind.

    :param server: the :class:`~kodiak.storage_object.backend.app.Server`.
    """

    kind = ''

    def __init__(self, server):
        self.server, self.devices, self.brokers = server, server.devices, server.brokers

    def locate(self, device, part, account, container=''):
        """``(device's folder, path of the database)``; raises :class:`Out`."""
        folder = self.devices.path(device)
        digest = self.server.digest(self.kind, account, container)
        return folder, Brokers.path(folder, self.kind, part, digest)

    def find(self, path):
        """The broker of a path, or None."""
        return self.brokers.get(self.kind, path)

    def make(self, device, path, account, container, stamp, policy=0):
        """The broker of a path, made if need be."""
        broker = self.find(path)
        if broker is None:
            self.devices.need(device)
            Brokers.KINDS[self.kind].create(path, device, account, container, stamp, self.devices.temporary(device), policy)
            broker = self.find(path)
            if broker is None:
                raise Out('the database cannot be made')
        return broker

    def page(self, request, broker, columns, where=''):
        """The rows that a listing asks for."""
        get = request.query.get
        limit = natural(get('limit', ''))
        return broker.listing(columns, 10000 if limit is None else limit, get('marker', ''), get('end_marker', ''),
                              get('prefix', ''), get('delimiter', ''), is_true(get('reverse', '')), get('path'), where,
                              (get('lower', ''), get('upper', '')))

    def safe(self, path, function, *arguments):
        """Call a function that uses a database; one that is found damaged is put away, and it is as if it were not there."""
        try:
            return function(*arguments)
        except Corrupt as error:
            self.brokers.damaged(self.kind, path, error)
            return answer(404)
        except sqlite3.OperationalError as error:
            raise Out(str(error)) from error

    @staticmethod
    def stamps(info):
        """The headers that tell the timestamps."""
        return {'X-Timestamp': info['created'], 'X-Put-Timestamp': info['put_stamp'],
                'X-Backend-Timestamp': info['created'], 'X-Backend-Put-Timestamp': info['put_stamp'],
                'X-Backend-Delete-Timestamp': info['delete_stamp'], 'X-Backend-Status-Changed-At': info['changed_stamp']}


def there(broker, info):
    """Whether an account or a container is there, not only its file."""
    return bool(info['count']) or (info['put_stamp'] != ZERO and not broker.is_deleted(info))


def request_stamp(request):
    """The request's timestamp."""
    return stamp_of(request.headers.get('X-Timestamp'))


def to_json(rows):
    """A listing's body."""
    return orjson.dumps(rows)
