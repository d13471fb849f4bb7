"""Wake-ups: a hint, once a transaction is committed, that there is work in the database.

Nothing depends on a wake-up arriving. Workers look at their tables every second or so; a wake-up only
spares the wait. Inside a process a wake-up is a function call. Between the processes of one service on
one host it is an empty datagram to a Unix socket, which costs microseconds and needs no broker; other
hosts find the work at their next look.
"""
import dataclasses
import errno
import os
import socket
import threading
import weakref

from kodiak.common import db as database

_listeners = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def listen(db, kind, function):
    """Call ``function()`` whenever this process committed work of a ``kind`` (``saga``, ``outbox``, ``hosts``) in ``db``.

    The function must return at once and must not fail.
    """
    with _lock:
        _listeners.setdefault(db.engine, {}).setdefault(kind, []).append(function)


def forget(db, kind, function):
    """Undo :func:`listen`."""
    with _lock:
        functions = _listeners.get(db.engine, {}).get(kind, [])
        if function in functions:
            functions.remove(function)


def after_commit(connection, kind):
    """Wake those who listen for ``kind`` when the write transaction of ``connection`` is committed, once."""
    hook = _Ring(connection.engine, kind)
    if hook not in connection.info['after_commit']:
        database.after_commit(connection, hook)


@dataclasses.dataclass(frozen=True)
class _Ring:
    engine: object
    kind: str

    def __call__(self):
        ring(self.engine, self.kind)


def ring(engine, kind):
    """Wake those in this process who listen for ``kind`` in the database of ``engine``."""
    for function in list(_listeners.get(engine, {}).get(kind, ())):
        function()


class Doorbell:
    """Carries the wake-ups of one service between its processes on this host.

    :param run_path: the sockets are in ``<run_path>/<service>.wake``, made if missing, for the service's user only.
    :param service: the service's short name.
    :param db: its database; a ring from another process wakes the listeners of this one.
    :param kinds: the kinds of work carried; ``hosts`` is what agents of hosts are to be hinted at.
    :param hear: False for a process that does no such work: it tells the others, and is not told.
    """

    def __init__(self, run_path, service, db, kinds=('saga', 'outbox', 'hosts'), hear=True):
        self.folder = os.path.join(run_path, service + '.wake')
        self.db = db
        self.kinds = kinds
        self.hear = hear
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._in = None
        self._senders = []
        self.path = None

    def start(self):
        """Carry this process's wake-ups to the others and hear theirs."""
        for kind in self.kinds:
            def sender(kind=kind):
                self.ring(kind)
            self._senders.append((kind, sender))
            listen(self.db, kind, sender)
        if self.hear:
            os.makedirs(self.folder, mode=0o750, exist_ok=True)
            self.path = os.path.join(self.folder, f'{os.getpid()}.{id(self):x}')
            self._in = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._in.bind(self.path)
            threading.Thread(target=self._hear, name='doorbell', daemon=True).start()

    def ring(self, kind):
        """Tell every process that listens in the folder; sockets that nobody reads any more are removed."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return
        for name in names:
            path = os.path.join(self.folder, name)
            if path == self.path:
                continue
            try:
                self._out.sendto(kind.encode(), path)
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    try:
                        os.unlink(path)
                    except OSError:
                        pass

    def stop(self):
        """Hear and carry no more."""
        for kind, sender in self._senders:
            forget(self.db, kind, sender)
        self._senders = []
        if self._in is not None:
            try:
                os.unlink(self.path)
            except OSError:
                pass
            try:
                self._in.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._in.close()
        self._out.close()

    def _hear(self):
        while True:
            try:
                kind = self._in.recv(64).decode()
            except OSError:
                return
            if not kind:
                return
            for function in list(_listeners.get(self.db.engine, {}).get(kind, ())):
                if not any(function is sender for _, sender in self._senders):
                    function()
