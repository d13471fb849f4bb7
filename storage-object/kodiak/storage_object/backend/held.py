"""Writes that hang on what is there: held on each device until the proxy knows what the others say.

A PUT or DELETE with a condition leaves ``<name>.held`` in the object's folder, ``<name>`` being that of the file that it would
make: nothing is to be seen of it (of fragments, no more than of any that are not durable). A POST with ``X-Backend-Held`` then says
what becomes of it: ``commit`` puts it in its place, ``settle`` has what was there before go, ``release`` has the object be as if
there had been no such write, committed or not.

What is held keeps other writes with a condition off for :data:`SECONDS`, and can be committed in the first half of them: so
of the devices that hold a write none lets go of it while another may still commit it.
"""
import contextlib
import fcntl
import os
import time

from . import diskfile
from .devices import sync_folder
from .diskfile import HELD
from .trees import names_in

FINAL = ('.data', '.ts')
SECONDS = 60
HEADERS = ('If-None-Match', 'X-Backend-If-Not-After')
IDLE = 3600             # seconds after which what is held, and settled by nobody, goes


class Refused(Exception):
    """A device does not hold a write: ``status`` 409 (as new is there), 412 (the condition), 423 (another is held), ``stamp``."""

    def __init__(self, status, stamp):
        super().__init__(status)
        self.status, self.stamp = status, stamp


def is_asked(headers):
    """Whether a write is to be held: whether it has a condition."""
    return any(name in headers for name in HEADERS)


@contextlib.contextmanager
def locked(folder):
    """Nobody else holds, commits or releases a write of an object meanwhile."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _stamp(name):
    """The timestamp in the name of a file of any kind."""
    name = name.removesuffix(HELD)
    return name.partition('#')[0] if '#' in name else name.rpartition('.')[0]


def _age(folder, name):
    try:
        return time.time() - os.stat(f'{folder}/{name}').st_mtime
    except FileNotFoundError:
        return SECONDS


def newest(folder):
    """The timestamp of what is there, or of its deletion; '' where there is nothing."""
    data, gone, _ = diskfile.newest(folder)
    return max(data or '', gone or '')


def check(folder, stamp, holds):
    """The timestamp of what is there, if a write may be held; raises :class:`Refused`.

    :param holds: a function that says whether the condition holds.
    """
    last = newest(folder)
    if last >= stamp:
        raise Refused(409, last)
    if not holds():
        raise Refused(412, last)
    for name in _pending(names_in(folder)):
        if (other := _stamp(name)) != stamp:
            if _age(folder, name) < SECONDS:
                raise Refused(423, other)
            if other > stamp:
                raise Refused(409, other)       # it may have been committed elsewhere
    return last


def take(source, target, stamp, holds):
    """Have a file be held: the timestamp of what is there. Raises :class:`Refused`.

    :param target: where it is to be, with :data:`~.diskfile.HELD`.
    """
    folder, name = os.path.split(target)
    with locked(folder):
        last = check(folder, stamp, holds)
        names = names_in(folder)
        for other in {_stamp(each) for each in _pending(names)} - {stamp}:
            _remove(folder, other, names)           # it was held for too long
        os.utime(source)
        os.rename(source, target)
        if '#' in name:
            with contextlib.suppress(FileExistsError):
                os.link(target, f'{folder}/{_fragment(name)}')
    return last


def _pending(names):
    return [name for name in names if name.endswith(HELD) and name.removesuffix(HELD) not in names]


def _fragment(name):
    """The name of what is held of fragments, as long as it is not durable."""
    return diskfile.fragment_name(*diskfile.fragment_of(name.removesuffix(HELD))[:2], False)


def commit(folder, stamp, holds):
    """Put what is held in its place: the name of the file, and whether there was an object before.

    Raises :class:`Refused`: 410 (it is not held, or was for too long), 409, 412.
    """
    if not os.path.isdir(folder):
        raise Refused(410, '')
    with locked(folder):
        names = names_in(folder)
        name = next((name for name in names if name.endswith(HELD) and _stamp(name) == stamp), None)
        files = diskfile.sort(names)
        last, there = max(files.data or '', files.gone or ''), files.data is not None
        if last > stamp:
            raise Refused(409, last)
        if last == stamp and name is None:
            return next(each for each in names if each.endswith(FINAL) and _stamp(each) == stamp), there     # a peer brought it
        if name is None or (last != stamp and _age(folder, name) > SECONDS / 2):
            raise Refused(410, last)
        final = name.removesuffix(HELD)
        if last != stamp:
            if not holds():
                raise Refused(412, last)
            if '#' in final:
                os.rename(f'{folder}/{_fragment(name)}', f'{folder}/{final}')
            else:
                os.link(f'{folder}/{name}', f'{folder}/{final}')
            sync_folder(folder)
            diskfile.tidy(folder)
        return final, there


def settle(folder, stamp):
    """What was committed stays: what was there before goes."""
    for name in names_in(folder):
        if name.endswith(HELD) and _stamp(name) == stamp:
            _unlink(f'{folder}/{name}')
    diskfile.tidy(folder)


def release(folder, stamp):
    """Have an object be as if a write had not been; whether it had been committed."""
    if not os.path.isdir(folder):
        return False
    with locked(folder):
        done = newest(folder) == stamp
        _remove(folder, stamp, names_in(folder))
        sync_folder(folder)
        diskfile.tidy(folder)
    return done


def _remove(folder, stamp, names):
    for name in names:
        if name.endswith((*FINAL, HELD)) and _stamp(name) == stamp:
            _unlink(f'{folder}/{name}')


def _unlink(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def reclaim(folder):
    """Let go of what nobody settled, and of a folder in which nothing came to be. Whether there was anything."""
    names = names_in(folder)
    old = [name for name in names if name.endswith(HELD) and _age(folder, name) > IDLE]
    if old:
        with locked(folder):
            for name in old:
                if name.removesuffix(HELD) in names:
                    _unlink(f'{folder}/{name}')
                else:
                    _remove(folder, _stamp(name), names)
        diskfile.tidy(folder)
    elif not names and _age(folder, '.') > IDLE:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return bool(old)
