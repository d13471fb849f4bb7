"""The image cache of a host: one file for each content, downloaded once, under every overlay that needs it.

A file is named by the hash of its content (the image's sha512, verified while it is downloaded), or by the image's
id where the image service keeps none. Beside it stands a small JSON file with its format and virtual size; it is
written last, so that a base without one is not there. Files are read-only for guests, by their group.
"""
import hashlib
import json
import logging
import os
import re
import threading
import time

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import qemu_img

LOG = logging.getLogger(__name__)
SUFFIX = '.json'


class Base:
    """A base image that is in the cache: ``path``, ``format`` in QEMU's words, ``size`` in bytes, ``key``."""

    def __init__(self, path, key, format, size):
        self.path = path
        self.key = key
        self.format = format
        self.size = size


class Cache:
    """The folder of base images.

    :param path: the folder.
    :param download: ``download(image_id)`` gives an iterator of bytes.
    :param max_age: seconds after which a base that no disk uses is removed.
    """

    def __init__(self, path, download, max_age=86400):
        self.path = path
        self.max_age = max_age
        self._download = download
        self._locks = {}
        self._guard = threading.Lock()
        os.makedirs(path, exist_ok=True)
        for name in os.listdir(path):
            if name.endswith(('.part', '.new')):
                os.unlink(os.path.join(path, name))

    @staticmethod
    def key(image):
        """The name under which an image (``agent.state.Image``) is kept."""
        if image.hash and re.fullmatch('[0-9a-f]{128}', image.hash):
            # The format belongs to it: the same bytes may be declared raw by one and qcow2 by another.
            return f'{image.hash[:40]}-{image.disk_format}'
        return f'image-{image.id}'

    def _lock(self, key):
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def get(self, image):
        """The :class:`Base` of an image. Whoever asks while another thread downloads it waits for that one.

        :raises base.Fault: ``image-invalid``, ``image-unavailable``, ``no-disk-space``.
        """
        key = self.key(image)
        with self._lock(key):
            found = self.find(key)
            if found is None:
                self._fetch(image, key)
                found = self.find(key)
        os.utime(found.path)
        return found

    def find(self, key):
        """The :class:`Base` of a key if it is here, or None."""
        path = os.path.join(self.path, key)
        try:
            with open(path + SUFFIX, encoding='utf-8') as file:
                about = json.load(file)
        except FileNotFoundError:
            return None
        return Base(path, key, about['format'], about['size']) if os.path.exists(path) else None

    def _fetch(self, image, key):
        path = os.path.join(self.path, key)
        part = path + '.part'
        started = time.monotonic()
        try:
            self._receive(image, part)
            format, size = qemu_img.inspect(part, image.disk_format)
            if format not in ('raw', 'qcow2'):
                converted = path + '.new'
                qemu_img.run('convert', '-f', format, '-O', 'qcow2', part, converted)
                os.replace(converted, part)
                format = 'qcow2'
            self.adopt(part, key, format, size)
        except OSError as error:
            raise base.Fault('no-disk-space' if error.errno == 28 else 'image-cache',
                             f'The image could not be stored on the host: {error.strerror}.')
        finally:
            for leftover in (part, path + '.new'):
                if os.path.exists(leftover):
                    os.unlink(leftover)
        LOG.info('Image %s is cached as %s (%s, %.1f s)', image.id, key, format, time.monotonic() - started)

    def _receive(self, image, part):
        digest = hashlib.sha512()
        with open(part, 'wb') as file:
            for chunk in self._download(image.id):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if image.hash and digest.hexdigest() != image.hash:
            # Not final: the data may have been cut or garbled on its way.
            raise base.Fault('image-corrupt', 'The data of the image does not have the hash that the image '
                                              'service keeps of it.')

    def adopt(self, file, key, format, size):
        """Move a finished file into the cache."""
        path = os.path.join(self.path, key)
        os.chmod(file, 0o640)
        os.replace(file, path)
        about = path + SUFFIX
        with open(about + '.new', 'w', encoding='utf-8') as out:
            json.dump({'format': format, 'size': size}, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(about + '.new', about)

    def prune(self, used):
        """Remove the bases that are not among the keys ``used`` and were not asked for in the last ``max_age`` seconds."""
        limit = time.time() - self.max_age
        for name in os.listdir(self.path):
            if not name.endswith(SUFFIX):
                continue
            key = name[:-len(SUFFIX)]
            with self._lock(key):
                path = os.path.join(self.path, key)
                if key in used or (os.path.exists(path) and os.stat(path).st_mtime > limit):
                    continue
                for victim in (path + SUFFIX, path):
                    if os.path.exists(victim):
                        os.unlink(victim)
                LOG.info('Image base %s was not used any more and is removed', key)
