"""What looks after the devices: passes that are repeated, whose progress can be seen."""
import fcntl
import logging
import os
import threading
import time

import orjson

from kodiak.common import metrics

LOG = logging.getLogger(__name__)


class Progress:
    """How far a daemon is: ``done`` of ``total`` things in this pass; ``counts`` of what happened in it."""

    def __init__(self):
        self.started = self.finished = None
        self.done = self.total = 0
        self.counts = {}
        self.details = {}           # of things that take more than a pass
        self.last = {}

    def begin(self, total=0):
        """A pass begins."""
        self.started, self.finished, self.done, self.total, self.counts = time.time(), None, 0, total, {}
        self.details = {}

    def count(self, what, number=1):
        """Something happened."""
        self.counts[what] = self.counts.get(what, 0) + number

    def end(self):
        """The pass has ended."""
        self.finished = time.time()
        self.total = self.done
        self.last = {'seconds': round(self.finished - self.started, 3), 'at': self.finished, 'done': self.done, **self.counts}

    def report(self):
        """For recon: done, left, rate (a second), estimated end (seconds since 1970).

        What is not known to be left yet is taken to be as much as in the last pass.
        """
        left = max(0, self.total - self.done, 0 if self.finished else self.last.get('done', 0) - self.done)
        spent = (self.finished or time.time()) - self.started if self.started else 0
        rate = self.done / spent if spent > 0 else 0
        return {'running': bool(self.started and not self.finished), 'started': self.started, 'done': self.done, 'left': left,
                'rate': round(rate, 3), 'estimated_end': time.time() + left / rate if left and rate else None,
                'counts': self.counts, 'last': self.last, **({'details': self.details} if self.details else {})}


class Daemon:
    """One of them. ``once()`` is a pass.

    :param server: the :class:`~kodiak.storage_object.backend.app.Server`. :param conf: the service's configuration.
    """

    name = ''
    EVERY = 1           # a pass is made each so many intervals

    def __init__(self, server, conf):
        self.server, self.conf = server, conf
        self.progress = Progress()
        self.progress.last = (read_recon(conf).get(self.name) or {}).get('last') or {}
        self.places = Places(os.path.join(conf.state_path, 'storage-object', f'{self.name}.places.json'))
        self.ending = threading.Event()
        self._nudged = threading.Event()
        self._thread = None

    def once(self):
        """A pass."""
        raise NotImplementedError

    def run_once(self):
        """A pass, whatever goes wrong in it."""
        self.progress.begin()
        try:
            self.once()
        except Exception:
            LOG.exception('The pass of the %s ended early', self.name)
            self.progress.count('failed')
        self.progress.end()

    def nudge(self):
        """There is something to do now."""
        self._nudged.set()

    def start(self):
        """Repeat passes in a thread."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self):
        while not self.ending.is_set():
            self.run_once()
            self._nudged.wait(self.conf.storage.interval * self.EVERY)
            self._nudged.clear()

    def stop(self):
        """End as soon as the present thing is done."""
        self.ending.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(15)
        self.places.save()

    def before(self):
        """The timestamp before which marks of deletions are reclaimed."""
        return f'{time.time() - self.conf.storage.reclaim_age:016.5f}'

    def fresh(self, paths, key=None):
        """Go through a list, counting; ends early when the daemon is to end.

        :param key: what list this is, if it is to go on where it was left when the daemon ended in the middle of it.
        """
        self.progress.total += len(paths)
        for each in self.places.rotated(key, paths) if key else paths:
            if self.ending.is_set():
                return
            if key:
                self.places.note(key, each)
            yield each
            self.progress.done += 1
        if key:
            self.places.forget(key)


class Places:
    """What a daemon is at in each of its lists, in a file."""

    EVERY = 5               # seconds between two writings

    def __init__(self, path):
        self.path, self._saved, self._written = path, time.monotonic(), {}
        try:
            with open(path, 'rb') as file:
                self.known = dict(orjson.loads(file.read()))
        except (OSError, ValueError, TypeError):
            self.known = {}
        self._written = dict(self.known)

    @staticmethod
    def _name(item):
        return item if isinstance(item, str) else item[-1]

    def rotated(self, key, items):
        """A list from after where it was left, and around."""
        items, left = list(items), self.known.get(key)
        place = next((place for place, item in enumerate(items) if self._name(item) == left), -1)
        return items[place + 1:] + items[:place + 1]

    def note(self, key, item):
        """This is what it is at."""
        self.known[key] = self._name(item)
        if time.monotonic() - self._saved > self.EVERY:
            self.save()

    def forget(self, key):
        """The end of a list was reached."""
        self.known.pop(key, None)
        if key in self._written:
            self.save()

    def save(self):
        """Write the file."""
        self._saved = time.monotonic()
        if self.known == self._written:
            return
        try:
            with open(self.path + '.new', 'wb') as file:
                file.write(orjson.dumps(self.known))
            os.replace(self.path + '.new', self.path)
            self._written = dict(self.known)
        except OSError as error:
            LOG.warning('%s cannot be written: %s', self.path, error)


class Care:
    """All daemons of a node, in one of its server's processes: the one that gets the lock."""

    METRICS = {'': 'What is left to be done in the pass of a daemon', '_oldest_seconds': 'Since its last pass ended',
               '_done': 'What has been done in it', '_rate': 'How much of it is done in a second',
               '_end_timestamp': 'When it will have ended, in seconds since 1970; 0 if that is not known'}

    def __init__(self, server, conf, daemons):
        self.server, self.conf, self.daemons = server, conf, daemons
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name='care', daemon=True)
        self._lock = None
        self.running = False

    def start(self):
        """Wait for the lock in a thread, then start them."""
        metrics.collect('storage_passes', self._measure, self.METRICS)
        self._thread.start()

    def _run(self):
        path = os.path.join(self.conf.run_path, 'kodiak-object-daemons.lock')
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if self._ending.wait(2):
                    return
        self.running = True
        for daemon in self.daemons:
            daemon.start()
        while not self._ending.wait(min(5, self.conf.storage.interval)):
            self.write_recon()

    def stop(self):
        """End them."""
        metrics.forget('storage_passes', self._measure)
        self._ending.set()
        if self.running:
            for daemon in self.daemons:
                daemon.ending.set()
            for daemon in self.daemons:
                daemon.stop()
        if self._thread.is_alive():
            self._thread.join(5)
        if self._lock is not None:
            os.close(self._lock)

    def _measure(self):
        # Whichever process is asked: that of the daemons writes how far they are.
        known = {daemon.name: daemon.progress.report() for daemon in self.daemons} if self.running else read_recon(self.conf)
        for daemon in self.daemons:
            if (found := known.get(daemon.name)) is not None:
                last = found['last'].get('at') or found['started'] or time.time()
                yield ({'daemon': daemon.name}, found['left'], time.time() - last, found['done'], found['rate'],
                       found['estimated_end'] or 0)

    def write_recon(self):
        """Note how far they are where ``/recon`` finds it, whichever process answers."""
        write_recon(self.conf, self.daemons)


def recon_path(conf):
    """The file of progress."""
    return os.path.join(conf.state_path, 'storage-object', 'recon.json')


def write_recon(conf, daemons):
    """Write the file of progress; what other daemons wrote stays."""
    path = recon_path(conf)
    found = read_recon(conf)
    found.update((daemon.name, daemon.progress.report()) for daemon in daemons)
    part = f'{path}.{os.getpid()}'
    try:
        with open(part, 'wb') as file:
            file.write(orjson.dumps(found))
        os.rename(part, path)
    except OSError as error:
        LOG.warning('%s cannot be written: %s', path, error)


def read_recon(conf):
    """The progress that was written last, by daemon."""
    try:
        with open(recon_path(conf), 'rb') as file:
            return orjson.loads(file.read())
    except (OSError, ValueError):
        return {}


class State:
    """When each partition of a device was seen to last: a file on the device."""

    def __init__(self, path):
        self.path = path
        self._saved = time.monotonic()
        try:
            with open(self.path, 'rb') as file:
                self.times = orjson.loads(file.read())
        except (OSError, ValueError):
            self.times = {}

    @staticmethod
    def _key(place):
        return f'{place[0]}/{place[1]}'

    def oldest_first(self, places):
        """Sort partitions."""
        return sorted(places, key=lambda place: self.times.get(self._key(place), 0))

    def seen(self, place):
        """A partition has been seen to."""
        self.times[self._key(place)] = time.time()
        if time.monotonic() - self._saved > 5:
            self.save()

    def save(self):
        """Write it."""
        self._saved = time.monotonic()
        part = self.path + '.new'
        try:
            with open(part, 'wb') as file:
                file.write(orjson.dumps(self.times))
            os.rename(part, self.path)
        except OSError as error:
            LOG.warning('%s cannot be written: %s', self.path, error)
