"""What a device holds, as hashes that peers compare: of each suffix, and of each partition."""
import hashlib
import os
import threading

from . import diskfile, fragments


def names_in(path):
    """What is in a folder; nothing if it is not there."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def hash_folders(path):
    """``{hash: [names of the files that hold]}`` of a suffix's folder."""
    found = {}
    for digest in names_in(path):
        names = names_in(f'{path}/{digest}')
        rubbish = set(diskfile.sort(names).rubbish) if names else ()
        kept = sorted(name for name in names if name not in rubbish and name.endswith(diskfile.EXTENSIONS))
        if kept:
            found[digest] = kept
    return found


class Trees:
    """The hashes of the objects on the devices of a server.

    A suffix is looked at again when the time of its folder has changed, which every change of an object below sets.
    """

    LIMIT = 200_000

    def __init__(self):
        self._known = {}
        self._lock = threading.Lock()

    def partition(self, device, policy, part, home=None):
        """``{suffix: hash}``.

        :param home: the number of the fragments that the device is to have, where the policy has an erasure code.
        """
        path = f'{device}/{diskfile.folder_of(policy)}/{part}'
        return {suffix: found[0] for suffix in names_in(path) if (found := self._suffix(f'{path}/{suffix}', home)) is not None}

    def strays(self, device, policy, part, home):
        """The suffixes below which there is what other devices are to have."""
        path = f'{device}/{diskfile.folder_of(policy)}/{part}'
        return [suffix for suffix in names_in(path) if (found := self._suffix(f'{path}/{suffix}', home)) is not None and found[1]]

    def _suffix(self, path, home):
        try:
            stamp = os.stat(path).st_mtime_ns
        except OSError:
            return None
        known = self._known.get(path)
        if known is not None and known[0] == (stamp, home):
            return known[1]
        folders = sorted(hash_folders(path).items())
        lines = [' '.join([digest, *(fragments.normal(name, home) for name in names)]) for digest, names in folders]
        stray = any(fragments.is_stray(name, home) for _, names in folders for name in names)
        found = (hashlib.md5('\n'.join(lines).encode(), usedforsecurity=False).hexdigest(), stray) if lines else None
        if len(self._known) > self.LIMIT:
            with self._lock:
                self._known = {}
        self._known[path] = ((stamp, home), found)
        return found

    @staticmethod
    def root(suffixes):
        """One hash of a partition's."""
        text = ' '.join(f'{suffix}:{found}' for suffix, found in sorted(suffixes.items()))
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    @staticmethod
    def parts(device, policy):
        """The partitions that a device holds something of."""
        return sorted((name for name in names_in(f'{device}/{diskfile.folder_of(policy)}') if name.isdigit()), key=int)


def databases(device, kind):
    """``(partition, hash, path)`` of each database of a kind on a device."""
    top = f'{device}/{kind}s'
    for part in sorted(names_in(top)):
        for suffix in sorted(names_in(f'{top}/{part}')):
            for digest in sorted(names_in(f'{top}/{part}/{suffix}')):
                path = f'{top}/{part}/{suffix}/{digest}/{digest}.db'
                if os.path.exists(path):
                    yield part, digest, path


def state_of(path):
    """What changes with every change of a database file; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    try:
        log = os.stat(path + '-wal')
        return status.st_ino, status.st_mtime_ns, log.st_mtime_ns, log.st_size
    except OSError:
        return status.st_ino, status.st_mtime_ns
