"""Objects on disk.

The folder of an object is ``objects[-N]/<partition>/<suffix>/<hash>`` of its device: N the storage policy (none for 0), hash the
32 hexadecimal digits of its name, suffix their last three. In it are files named by the timestamp of a change:

- ``<timestamp>.data``: the body, then its metadata, then the trailer.
- ``<timestamp>[+<timestamp>].meta``: the metadata that a POST gave in place of the former; after "+" when its Content-Type was
  given.
- ``<timestamp>.ts``: the mark that it was deleted.
- ``<timestamp>#<number>.data``: in place of the body, its fragments of one number, where the policy has an erasure code;
  ``<timestamp>#<number>#d.data``, once enough devices have theirs (it is durable).
- ``<name of a file>.held``: what hangs on a condition, and is nothing yet (see :mod:`.held`).

The newest of ``.data`` and ``.ts`` holds, with the newest ``.meta`` later than it; all others are rubbish. Metadata is a JSON
object of headers, and ``name``. The trailer are the last 24 bytes, little-endian: magic (8 bytes), length of the body (8), of
the metadata (4), CRC-32 of the metadata (4). A file is written in ``tmp`` of its device, synced, renamed, its folder synced.
"""
import ctypes
import os
import struct
import zlib

import orjson

from .devices import make_folders, sync_folder

MAGIC = b'KODIAKo1'
TRAILER = struct.Struct('<8sQII')
TAIL = 4096
WRITE_BACK = 4 << 20        # bytes after which the disk begins with them, while the rest still comes
EXTENSIONS = ('.data', '.meta', '.ts')
HELD = '.held'


_sync_file_range = getattr(ctypes.CDLL(None, use_errno=True), 'sync_file_range', None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _begin_write_back(descriptor, start, length):
    """Have the kernel write a part of a file, without waiting: the sync at its end has then less to wait for."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, length, 2)      # SYNC_FILE_RANGE_WRITE; only a hint, so its errors are the sync's


class Corrupt(Exception):
    """A file is not what was written."""


class Missing(Exception):
    """There is no object; ``stamp`` of its deletion, if that is known."""

    def __init__(self, stamp=None):
        super().__init__(stamp)
        self.stamp = stamp


def folder_of(policy):
    """Name of the folder of a policy's objects."""
    return f'objects-{policy}' if policy else 'objects'


def trailer(body_size, metadata):
    """What follows the body: metadata and trailer."""
    text = orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)
    return text + TRAILER.pack(MAGIC, body_size, len(text), zlib.crc32(text))


def read_trailer(descriptor, size=None):
    """``(metadata, body size)`` of an open file; raises :class:`Corrupt`."""
    size = os.fstat(descriptor).st_size if size is None else size
    want = min(size, TAIL)
    return parse_tail(descriptor, os.pread(descriptor, want, size - want), size)


def parse_tail(descriptor, tail, size):
    """As :func:`read_trailer`, with the end of the file read already."""
    if len(tail) < TRAILER.size:
        raise Corrupt('it is too short')
    magic, body_size, length, check = TRAILER.unpack_from(tail, len(tail) - TRAILER.size)
    if magic != MAGIC or body_size + length + TRAILER.size != size:
        raise Corrupt('it has no trailer, or one of another file')
    if length + TRAILER.size <= len(tail):
        text = tail[len(tail) - TRAILER.size - length:len(tail) - TRAILER.size]
    else:
        text = os.pread(descriptor, length, body_size)
    if zlib.crc32(text) != check:
        raise Corrupt('its metadata has another checksum')
    return orjson.loads(text), body_size


class Files:
    """Which of the files in an object's folder hold.

    ``data``, ``gone`` (timestamps or None; at most one is set), ``meta`` and ``typed`` (names of .meta files or None: the newest,
    and the one with the newest Content-Type), ``rubbish`` (names).
    """

    __slots__ = ('data', 'gone', 'meta', 'rubbish', 'typed')

    def __init__(self, names):
        self.data = self.gone = self.meta = self.typed = None
        self.rubbish = []
        if len(names) == 1 and names[0].endswith('.data'):
            self.data = names[0][:-5]
            return
        metas = []
        for name in names:
            if name.endswith('.data'):
                if self.data is None or name[:-5] > self.data:
                    self.data = name[:-5]
            elif name.endswith('.ts'):
                if self.gone is None or name[:-3] > self.gone:
                    self.gone = name[:-3]
            elif name.endswith('.meta'):
                metas.append(name)
        self._settle(names, metas, {f'{self.data}.data'})

    def _settle(self, names, metas, keep):
        """Which of the data and of its deletion is newer, what metadata belongs to it; all other files but ``keep`` are rubbish."""
        if self.data is not None and self.gone is not None:
            if self.data > self.gone:
                self.gone = None
            else:
                self.data = None
        if self.data is None:
            keep = {name for name in keep if '#' in name and name.partition('#')[0] > (self.gone or '')} | {f'{self.gone}.ts'}
        if self.data is not None and metas:
            metas = [name for name in metas if _parts(name)[0] > self.data]
            if metas:
                self.meta = max(metas, key=lambda name: (_parts(name)[0], _parts(name)[1]))
                self.typed = max(metas, key=lambda name: _parts(name)[1])
                if _parts(self.typed)[1] <= max(_parts(self.meta)[1], self.data):
                    self.typed = self.meta
                keep |= {self.meta, self.typed}
        if self.data is not None or self.gone is not None:
            self.rubbish = [name for name in names if name not in keep and name.endswith(EXTENSIONS)]

    @property
    def data_name(self):
        """Name of the file with the body."""
        return f'{self.data}.data'

    @property
    def meta_stamp(self):
        """Timestamp of the newest metadata, or None."""
        return _parts(self.meta)[0] if self.meta else None

    @property
    def typed_stamp(self):
        """Timestamp of the Content-Type, where a POST gave it; or ''."""
        return _parts(self.typed)[1] if self.typed else ''


class Fragments(Files):
    """The same of an object of which fragments are kept: the newest that are durable are its data.

    ``held``: ``{timestamp: {number: name}}`` of those that hold, and of newer ones that are not durable yet.
    """

    __slots__ = ('held',)

    def __init__(self, names):
        self.data = self.gone = self.meta = self.typed = None
        self.rubbish, held, durable = [], {}, set()
        for name in names:
            if name.endswith('.data') and '#' in name:
                stamp, number, done = fragment_of(name)
                if done:
                    durable.add(stamp)
                if done or number not in held.get(stamp, ()):
                    held.setdefault(stamp, {})[number] = name
        self.data = max(durable, default=None)
        self.gone = max((name[:-3] for name in names if name.endswith('.ts')), default=None)
        self.held = {stamp: found for stamp, found in held.items()
                     if stamp > (self.gone or '') and stamp >= (self.data or '')}
        self._settle(names, [name for name in names if name.endswith('.meta')],
                     {name for found in self.held.values() for name in found.values()})

    @property
    def data_name(self):
        """Name of a file with fragments."""
        found = self.held[self.data]
        return found[min(found)]


def fragment_of(name):
    """``(timestamp, number, whether it is durable)`` of a file of fragments."""
    stamp, number, *done = name[:-5].split('#')
    return stamp, int(number), bool(done)


def fragment_name(stamp, number, durable):
    """The other way round."""
    return f'{stamp}#{number}#d.data' if durable else f'{stamp}#{number}.data'


def sort(names):
    """The :class:`Files` (or :class:`Fragments`) of names."""
    return Fragments(names) if any('#' in name for name in names) else Files(names)


def _parts(name):
    stamp, _, typed = name[:-5].partition('+')
    return stamp, typed


def files_in(folder):
    """The :class:`Files` of a folder; None if there is no such folder."""
    names = _names_in(folder)
    return sort(names) if names else None


def _names_in(folder):
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None


def newest(folder):
    """Timestamps ``(of the data, of the deletion, of the metadata)``; None where there is none."""
    files = files_in(folder)
    return (files.data, files.gone, files.meta_stamp) if files else (None, None, None)


def replaced(name):
    """Whether a POST replaces a header of the data file."""
    return not (name.startswith('X-Object-Sysmeta-') or name in ('Content-Type', 'X-Static-Large-Object', 'Etag', 'name'))


class Object:
    """An object that is open for reading.

    ``metadata`` (headers), ``size``, ``etag``, ``stamp`` (of its last change), ``data_stamp``, ``small`` (the body, where it came
    with the metadata), ``descriptor``. Where the file has fragments, ``ec`` says of what (None otherwise), ``size`` and ``etag``
    are the object's, ``stored_size`` and ``stored_etag`` the file's.

    :param choose: a function that gives ``(timestamp, name)`` of the file to open, of a :class:`Files`; or None.
    """

    __slots__ = ('data_stamp', 'descriptor', 'ec', 'etag', 'files', 'metadata', 'name', 'size', 'small', 'stamp', 'stored_etag',
                 'stored_size', 'typed_stamp')

    def __init__(self, folder, choose=None):
        for attempt in range(3):
            self.files = files = files_in(folder)
            if files is None:
                raise Missing()
            chosen = choose(files) if choose else files.data is not None and (files.data, files.data_name)
            if not chosen:
                raise Missing(files.gone)
            try:
                self._open(folder, files, *chosen)
                return
            except FileNotFoundError:
                if attempt == 2:
                    raise Missing() from None       # replaced each time between the look and the opening

    def _open(self, folder, files, stamp, name):
        self.data_stamp = self.stamp = stamp
        self.typed_stamp = files.typed_stamp
        self.descriptor = os.open(f'{folder}/{name}', os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(self.descriptor).st_size
            want = min(size, TAIL * 2)
            tail = os.pread(self.descriptor, want, size - want)
            self.metadata, self.size = parse_tail(self.descriptor, tail, size)
            self.small = tail[:self.size] if want == size else None
            self.etag, self.name = self.metadata.pop('Etag', ''), self.metadata.pop('name', '')
            self.stored_size, self.stored_etag, self.ec = self.size, self.etag, self.metadata.pop('Ec', None)
            if self.ec is not None:
                self.size, self.etag = self.ec['length'], self.ec['etag']
            if files.meta and files.meta_stamp > stamp:
                self.stamp = files.meta_stamp
                later = self._meta(folder, files.meta)
                kept = {name: value for name, value in self.metadata.items() if not replaced(name)}
                typed = later if files.typed == files.meta else self._meta(folder, files.typed)
                if files.typed_stamp > stamp and 'Content-Type' in typed:
                    kept['Content-Type'] = typed['Content-Type']
                later.pop('Content-Type', None)
                self.metadata = {**kept, **later}
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _meta(folder, name):
        with open(f'{folder}/{name}', 'rb') as file:
            metadata, _ = read_trailer(file.fileno())
        metadata.pop('name', None)
        return metadata

    def close(self):
        """Let go of it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def take(self):
        """Its descriptor, which the caller closes."""
        descriptor, self.descriptor = self.descriptor, None
        return descriptor


class Writer:
    """A new file of an object. Use as a context; nothing is left of it without :meth:`commit`.

    :param device: folder of the device. :param folder: of the object, relative to it.
    """

    def __init__(self, devices, device, folder):
        self.device, self.folder = device, f'{device}/{folder}'
        self.path = devices.temporary(device)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self.descriptor = os.open(self.path, flags, 0o640)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.descriptor = os.open(self.path, flags, 0o640)
        self.size = self._begun = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.descriptor is not None:
            os.close(self.descriptor)
        if self.path is not None:
            try:
                os.unlink(self.path)
            except OSError:
                pass

    def expect(self, size):
        """Have room for so many bytes, or raise OSError now."""
        if size > 1 << 20:
            os.posix_fallocate(self.descriptor, 0, size)

    def write(self, data):
        """Add to the body."""
        self.size += len(data)
        while data:
            done = os.write(self.descriptor, data)
            if done == len(data):
                break
            data = memoryview(data)[done:]
        if self.size - self._begun >= WRITE_BACK:
            _begin_write_back(self.descriptor, self._begun, self.size - self._begun)
            self._begun = self.size

    def commit(self, name, metadata=None, rename=os.rename):
        """Put the file in its place under ``name``, synced.

        :param metadata: None if what was written has metadata and trailer.
        :param rename: does it; called with both paths. What it raises is raised, and nothing is done.
        """
        if metadata is not None:
            end = trailer(self.size, metadata)
            self.write(end)
        if os.fstat(self.descriptor).st_size != self.size:
            os.ftruncate(self.descriptor, self.size)
        for attempt in range(3):
            changed = make_folders(self.folder, self.device)
            if attempt == 0:
                os.fsync(self.descriptor)
            try:
                rename(self.path, f'{self.folder}/{name}')
                break
            except FileNotFoundError:
                if attempt == 2 or not os.path.exists(self.path):
                    raise
        self.path = None
        sync_folder(self.folder)
        for path in reversed(changed):
            sync_folder(path)
        tidy(self.folder)


def tidy(folder, before=None):
    """Remove what no longer holds; note the change for who compares (the time of the suffix's folder).

    As long as something is held, all stays: it may still be released, and what was there before holds again.

    :param before: a timestamp: marks of deletions that are older go too.
    """
    names = _names_in(folder)
    if names:
        files = sort(names)
        rubbish = files.rubbish
        if rubbish and any(name.endswith(HELD) for name in names):
            rubbish = []
        if files.gone is not None and before is not None and files.gone < before:
            rubbish = [*rubbish, files.gone + '.ts']
        for name in rubbish:
            try:
                os.unlink(f'{folder}/{name}')
            except FileNotFoundError:
                pass
        if before is not None and files.gone is not None and files.gone < before:
            try:
                os.rmdir(folder)
            except OSError:
                pass
    try:
        os.utime(os.path.dirname(folder))
    except OSError:
        pass


def quarantine(device, folder, kind):
    """Move the folder of an object, or of a database, out of the way; where it is now."""
    place = f'{device}/quarantined/{kind}'
    os.makedirs(place, exist_ok=True)
    name = os.path.basename(folder)
    for number in range(1000):
        target = f'{place}/{name}' + (f'-{number}' if number else '')
        try:
            os.rename(folder, target)
        except FileNotFoundError:
            return None
        except OSError:
            continue
        os.utime(os.path.dirname(folder))
        return target
    return None
