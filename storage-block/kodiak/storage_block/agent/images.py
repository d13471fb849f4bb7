"""The agent's two dealings with the image service, and the images that volumes were made of lately.

An image is kept as a sparse raw file. Where the volumes lie on the same file system and it can, making a volume of it
is then a matter of milliseconds, whatever its size.
"""
import hashlib
import logging
import os
import re
import threading
import time

import requests

from kodiak.common import errors
from kodiak.storage_block import qemu_img, sparse, ticket
from kodiak.storage_block.drivers.base import PART, Fault, Node

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20
PATCH = 'application/openstack-images-v2.1-json-patch'
SHA512 = re.compile('[0-9a-f]{128}')


class Images:
    """Image data, by the service's own credentials: whether the user may have it was asked by the API.

    :param client: the image client of :class:`kodiak.common.client.Clients`. :param folder: of what is kept.
    """

    def __init__(self, client, folder, hours=24):
        self.client, self.folder, self.hours = client, folder, hours
        self._locks, self._guard, self._used = {}, threading.Lock(), {}
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in os.listdir(folder):
            if name.endswith(PART):
                os.unlink(os.path.join(folder, name))

    def raw(self, image):
        """A raw file with the content of an image: ``using(path)`` for a ``with`` block, at whose end it may vanish.

        :param image: its document. :raises Fault: ``image``, ``no-space``.
        """
        return _Raw(self, image)

    def prune(self):
        """Forget what was not used for long."""
        limit = time.time() - 3600 * self.hours
        for name in os.listdir(self.folder):
            if name.endswith(PART):
                continue
            path = os.path.join(self.folder, name)
            with self._lock(name):
                if not self._used.get(name) and os.stat(path).st_mtime <= limit:
                    os.unlink(path)

    def _lock(self, key):
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def _fetch(self, image, path):
        if image.get('container_format') not in (None, 'bare', 'ovf', 'ami', 'aki', 'ari'):
            raise Fault('image', f'A volume cannot be made from an image in a {image["container_format"]} container.', final=True)
        part = path + '.down' + PART
        began = time.monotonic()
        try:
            self._receive(image, part)
            format, _size = qemu_img.inspect(part, image.get('disk_format'))
            if format != 'raw':
                qemu_img.convert_to_file(Node.of_path(part, format), 'raw', path + PART)
                os.replace(path + PART, part)
            os.chmod(part, 0o600)
            os.replace(part, path)
            sparse.sync_folder(self.folder)
        except OSError as error:
            raise Fault('no-space' if error.errno == 28 else 'image', f'The image could not be stored: {error.strerror}.')
        finally:
            for left in (part, path + PART):
                if os.path.exists(left):
                    os.unlink(left)
        LOG.info('Image %s is here after %.1f s', image['id'], time.monotonic() - began)

    def _receive(self, image, path):
        """Download; zeros become holes. What arrives is held against the hash that the image service keeps."""
        digest = hashlib.new(image['os_hash_algo']) if image.get('os_hash_algo') in hashlib.algorithms_available else None
        offset = 0
        with open(path, 'wb') as file:
            for piece in self._download(image['id']):
                if digest is not None:
                    digest.update(piece)
                sparse.write_at(file.fileno(), piece, offset)
                offset += len(piece)
                ticket.check(offset // 2, image.get('size'))
            os.ftruncate(file.fileno(), offset)
            os.fsync(file.fileno())
        if digest is not None and image.get('os_hash_value') and digest.hexdigest() != image['os_hash_value']:
            raise Fault('image', 'The data of the image does not have the hash that the image service keeps of it.')

    def _download(self, image_id):
        try:
            response = self.client.request('GET', f'/v2/images/{image_id}/file', stream=True, timeout=120,
                                           headers={'Accept': 'application/octet-stream'})
        except (errors.NotFound, errors.Gone, errors.Forbidden):
            raise Fault('image', f'The image {image_id} cannot be had any more.', final=True)
        except errors.Error as error:
            raise Fault('image', f'The image {image_id} could not be fetched: {error.message}')
        if response.status_code == 204:
            raise Fault('image', f'The image {image_id} has no data.', final=True)
        with response:
            try:
                while piece := response.raw.read(CHUNK):
                    yield piece
            except (requests.RequestException, OSError) as error:
                raise Fault('image', f'The data of image {image_id} broke off: {type(error).__name__}.')

    def upload(self, image_id, path, disk_format, container_format='bare'):
        """Send a file as the data of a queued image. One that has its data already is left as it is.

        :raises Fault: ``image``; final where the image is gone or takes no more.
        """
        try:
            image = self.client.get(f'/v2/images/{image_id}')
            if image['status'] == 'active':
                return
            wanted = {'disk_format': disk_format, 'container_format': container_format}
            changes = [{'op': 'add', 'path': '/' + name, 'value': value}
                       for name, value in wanted.items() if image.get(name) != value]
            if changes:
                self.client.request('PATCH', f'/v2/images/{image_id}', json=changes, headers={'Content-Type': PATCH})
            with _Upload(path) as data:
                self.client.request('PUT', f'/v2/images/{image_id}/file', data=data, timeout=3600, retries=0,
                                    headers={'Content-Type': 'application/octet-stream'})
        except (errors.NotFound, errors.Gone, errors.Forbidden, errors.RequestTooLarge, errors.Conflict) as error:
            raise Fault('image', f'The image {image_id} takes no data: {error.message}', final=True)
        except errors.Error as error:
            raise Fault('image', f'The image {image_id} could not be written: {error.message}')


class _Raw:
    def __init__(self, images, image):
        self.images, self.image = images, image
        hashed = image.get('os_hash_value') or ''
        # The format belongs to it: the same bytes may be declared raw by one and qcow2 by another.
        self.key = f'{hashed[:64]}-{image.get("disk_format")}' if SHA512.fullmatch(hashed) else f'image-{image["id"]}'

    def __enter__(self):
        images, path = self.images, os.path.join(self.images.folder, os.path.basename(self.key))
        with images._lock(self.key):
            if not os.path.exists(path):
                images._fetch(self.image, path)
            os.utime(path)
            images._used[self.key] = images._used.get(self.key, 0) + 1
        return path

    def __exit__(self, *_):
        with self.images._lock(self.key):
            self.images._used[self.key] -= 1


class _Upload:
    """A file or device that is sent: it has a length, and stops when the work is cancelled."""

    def __init__(self, path):
        self.file = open(path, 'rb')        # noqa: SIM115
        self.length = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)

    def __len__(self):
        return self.length

    def read(self, size=-1):
        ticket.check(self.file.tell(), self.length)
        return self.file.read(size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
