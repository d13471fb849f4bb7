"""Fragments of objects on a device: which of them a request wants, what of them, and when they hold.

A PUT with ``X-Backend-Fragment-Index`` stores ``<timestamp>#<number>.data``, of which nothing is to be seen yet. A POST with
``X-Backend-Fragment-Commit`` makes it durable: what was there before goes, and the containers are told.

A GET is answered with fragments of the newest durable data. With ``X-Backend-Fragment-Preferences`` (JSON: ``stamp``, ``not``:
numbers) it may ask for others; of the newest that are not durable, where none is. Its ``Range`` is one of the object's: those
fragments are sent that it touches, whole.
"""
import os

import orjson

from . import diskfile
from .devices import sync_folder

PREFERENCES = 'X-Backend-Fragment-Preferences'


def number(request, header='X-Backend-Fragment-Index'):
    """The number of a fragment that a request says; None if it says none."""
    text = request.headers.get(header)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 3:
        raise ValueError(f'{header} is no number')
    return int(text)


def name_of(stamp, number):
    """The name of the file of a write that holds; ``number``: of its fragments, or None."""
    return stamp + '.data' if number is None else diskfile.fragment_name(stamp, number, True)


def chooser(request):
    """What chooses the file for a GET."""
    text = request.headers.get(PREFERENCES)
    if text is None:
        return None
    wanted = orjson.loads(text)

    def choose(files):
        if not isinstance(files, diskfile.Fragments):
            return None
        stamp = wanted.get('stamp') or files.data or max(files.held, default=None)
        found = {each: name for each, name in files.held.get(stamp, {}).items() if each not in wanted.get('not', ())}
        return (stamp, found[min(found)]) if found else None
    return choose


def _told(files):
    found = {'X-Backend-Fragments': orjson.dumps({stamp: sorted(names) for stamp, names in files.held.items()}).decode()}
    if files.data is not None:
        found['X-Backend-Durable-Timestamp'] = files.data
    return found


def held(folder):
    """Headers that say which fragments there are."""
    files = diskfile.files_in(folder)
    return _told(files) if isinstance(files, diskfile.Fragments) else {}


def headers(found):
    """The same, and what a proxy needs to make sense of those of a :class:`~.diskfile.Object`."""
    ec = found.ec
    return {**_told(found.files), 'X-Backend-Fragment-Index': ec['number'], 'X-Backend-Fragment-Size': ec['fragment'],
            'X-Backend-Segment-Size': ec['segment'], 'X-Backend-Content-Length': ec['length']}


def span(found, start, end):
    """Which bytes of the file the fragments of a range of the object are."""
    if end <= start:
        return 0, 0
    segment, fragment = found.ec['segment'], found.ec['fragment']
    return start // segment * fragment, min(-(-end // segment) * fragment, found.stored_size)


def commit(folder, stamp, which):
    """Make a fragment durable. 201; 404 where it is not there, 409 where something newer is."""
    files = diskfile.files_in(folder)
    if files is None:
        return 404
    if max(files.data or '', files.gone or '') > stamp or files.gone == stamp:
        return 409
    name, durable = (diskfile.fragment_name(stamp, which, done) for done in (False, True))
    if durable not in (files.held.get(stamp, {}).values() if isinstance(files, diskfile.Fragments) else ()):
        try:
            os.rename(f'{folder}/{name}', f'{folder}/{durable}')
        except FileNotFoundError:
            return 404
    sync_folder(folder)
    diskfile.tidy(folder)
    return 201


def check(descriptor, ec, codec):
    """Raise :class:`~kodiak.storage_object.erasure.Damaged` if fragments of a file are not what was made: each has a checksum, from
    before it was sent here. ``ec``: what the file's metadata says of them.
    """
    place = 0
    for start in range(0, ec['length'], ec['segment']):
        rest = min(ec['segment'], ec['length'] - start)
        size = ec['fragment'] if rest == ec['segment'] else codec.fragment_size(rest)
        codec.check(os.pread(descriptor, size, place), ec['number'])
        place += size


def normal(name, home):
    """A file's name as it is compared: without the number where it is the one that its device is to have."""
    if '#' not in name:
        return name
    stamp, which, durable = diskfile.fragment_of(name)
    return f'{stamp}#{"d" if durable else ""}.data' if which == home else name


def is_stray(name, home):
    """Whether a file has fragments that another device is to have; or whatever, on a device that is to have none."""
    return home is None or ('#' in name and diskfile.fragment_of(name)[1] != home)


def reclaim(folder, names, before):
    """Remove fragments of writes that were given up before a timestamp. Returns the other names."""
    old = {name for name in names if '#' in name and not name.endswith('#d.data') and name < before}
    files = diskfile.sort(names) if old else None
    old = {name for name in old if diskfile.fragment_of(name)[0] != files.data}
    for name in old:
        try:
            os.unlink(f'{folder}/{name}')
        except FileNotFoundError:
            pass
    if old:
        diskfile.tidy(folder)
    return [name for name in names if name not in old]
