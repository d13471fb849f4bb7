"""Doing something inside a network namespace, in the calling thread only."""
import contextlib
import ctypes
import os

from kodiak.network.agent import names

FOLDER = '/run/netns'
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def path(name):
    return os.path.join(FOLDER, name)


def check(result, what):
    """Raise OSError if a C function returned an error."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f'{what}: {os.strerror(number)}')


@contextlib.contextmanager
def inside(name):
    """The calling thread is in the namespace while the block runs; what it opens there stays there.

    :raises FileNotFoundError: there is no such namespace.
    """
    if name == names.HOST:
        yield
        return
    target = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    home = os.open('/proc/thread-self/ns/net', os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(LIBC.setns(target, CLONE_NEWNET), f'entering {name}')
        try:
            yield
        finally:
            if LIBC.setns(home, CLONE_NEWNET) != 0:
                os._exit(70)        # a thread that is lost in a namespace would do the next thing in the wrong place
    finally:
        os.close(target)
        os.close(home)
