"""What the proxy remembers of accounts and containers, forgotten by all processes of a host at once.

Each process has a dictionary of its own. A file that all map holds a counter for each of 65,536 slots; a change adds one to
its key's slot, and what was remembered under an older count is not used any more. Between hosts, only age counts.
"""
import mmap
import os
import struct
import time
import zlib

SLOTS = 65536
ENTRIES = 20000


class Cache:
    """A dictionary with ages and a shared memory of changes.

    :param path: the shared file; None: this process alone. :param age: seconds that an entry holds.
    """

    def __init__(self, path=None, age=10):
        self.age = age
        self._entries = {}
        if path is None:
            self._slots = mmap.mmap(-1, SLOTS * 8)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o660)
            try:
                if os.fstat(descriptor).st_size != SLOTS * 8:
                    os.ftruncate(descriptor, SLOTS * 8)
                self._slots = mmap.mmap(descriptor, SLOTS * 8)
            finally:
                os.close(descriptor)

    def _offset(self, key):
        return (zlib.crc32(key.encode('utf-8', 'surrogateescape')) % SLOTS) * 8

    def count(self, key):
        """The changes counted for a key; taken before what is to be remembered is read."""
        return struct.unpack_from('<Q', self._slots, self._offset(key))[0]

    def get(self, key):
        """What is remembered, or None."""
        entry = self._entries.get(key)
        if entry is None or entry[1] < time.monotonic() or entry[2] != self.count(key):
            return None
        return entry[0]

    def set(self, key, value, count, age=None):
        """Remember."""
        if len(self._entries) > ENTRIES:
            self._entries = {}
        self._entries[key] = (value, time.monotonic() + (self.age if age is None else age), count)

    def forget(self, key):
        """Let no process use what it remembers under a key."""
        offset = self._offset(key)
        struct.pack_into('<Q', self._slots, offset, (self.count(key) + 1) & 0xffffffffffffffff)
        self._entries.pop(key, None)
