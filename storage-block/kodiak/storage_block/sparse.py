"""Copies of files that cost what they hold: by reflink where the file system can, else without their holes."""
import errno
import fcntl
import os

from kodiak.storage_block import ticket

FICLONE = 0x40049409
CHUNK = 8 << 20
ZEROS = bytes(1 << 20)


def reflink(source, target):
    """Make the empty file ``target`` share the blocks of ``source`` (two descriptors). False where that can't be."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS):
            return False
        raise
    return True


def can_reflink(folder):
    """True if files in ``folder`` can share blocks."""
    source, target = (os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600) for _ in range(2))
    try:
        os.write(source, b'x' * 4096)
        return reflink(source, target)
    finally:
        os.close(source)
        os.close(target)


def extents(fd, size=None):
    """The parts of a file that hold data: ``(offset, length)``."""
    end = os.fstat(fd).st_size if size is None else size
    offset = 0
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno == errno.EINVAL:     # no file system that knows
                yield offset, end - offset
                return
            raise
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        if start >= end:
            return
        yield start, stop - start
        offset = stop


def copy(source, target, size=None):
    """Copy the data of ``source`` into the same places of ``target`` (two descriptors), which reads as zeros there."""
    total = os.fstat(source).st_size
    for start, length in extents(source, size):
        offset, end = start, start + length
        while offset < end:
            count = min(CHUNK, end - offset)
            try:
                done = os.copy_file_range(source, target, count, offset, offset)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                done = _write(target, os.pread(source, count, offset), offset)
            if not done:
                return
            offset += done
            ticket.check(offset, total)


def _write(fd, data, offset):
    """pwrite of everything, but of what is zeros."""
    view, step = memoryview(data), len(ZEROS)
    for start in range(0, len(view), step):
        piece = view[start:start + step]
        if piece == ZEROS[:len(piece)]:
            continue
        while piece:
            written = os.pwrite(fd, piece, offset + start)
            piece, start = piece[written:], start + written
    return len(data)


def clone(source, path, size=None):
    """A new file at ``path`` like the file ``source``, of ``size`` bytes if that is larger. Returns True if by reflink."""
    with open(source, 'rb') as old, open(path, 'xb') as new:
        os.fchmod(new.fileno(), 0o600)
        length = os.fstat(old.fileno()).st_size
        shared = reflink(old.fileno(), new.fileno())
        if not shared:
            os.ftruncate(new.fileno(), length)
            copy(old.fileno(), new.fileno())
        if size is not None and size > length:
            os.ftruncate(new.fileno(), size)
        os.fsync(new.fileno())
    return shared


def write_at(fd, data, offset):
    """Write ``data`` where it is not zeros; the file reads as zeros there."""
    _write(fd, data, offset)


def sync_folder(path):
    """Make renames in a folder last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
