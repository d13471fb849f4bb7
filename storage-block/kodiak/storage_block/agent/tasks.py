"""What an agent is told to do: one method for each kind of work of ``kodiak.storage_block.rpc``.

Each may be done again after a crash. What is made gets its name when it is whole; what replaces something is made beside
it first.
"""
import base64
import contextlib
import json
import logging
import os

from kodiak.common import diskimage
from kodiak.storage_block import luks, qemu_img
from kodiak.storage_block.backups import archive
from kodiak.storage_block.drivers import base
from kodiak.storage_block.drivers.base import GIB, Fault

LOG = logging.getLogger(__name__)
NEW = '.new'            # what will take the place of a volume
LEFT = 'unmanaged-'     # what was a volume of ours, and lies here for whoever takes it
OLD_KEY = 'key1'
NBD_CERTIFICATES = '/etc/kodiak/pki/nbd'


def bytes_of(size, encryption=None):
    """How many bytes a volume of ``size`` GiB takes: its owner sees all of them, whatever the encryption needs besides."""
    return size * GIB + (luks.OVERHEAD if encryption else 0)


class Tasks:
    """Does works.

    :param backends: ``{name: agent.main.Backend}``. :param images: an ``agent.images.Images``.
    :param passphrase: ``passphrase(key_id)`` gives that of an encryption key, as bytes.
    :param store: a ``backups.base.Store``, or None. :param folder: for what is passing.
    """

    def __init__(self, backends, images, passphrase, store, folder):
        self.backends, self.images, self.passphrase, self.store = backends, images, passphrase, store
        self.folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in os.listdir(folder):
            if not name.startswith('retyped-'):
                os.unlink(os.path.join(folder, name))

    def perform(self, work):
        """Do one work. Returns its result. :raises Fault: why not."""
        handler = getattr(self, '_' + work['kind'], None)
        if handler is None:
            raise Fault('invalid', f'This host cannot do {work["kind"]!r}: its release is older.', final=True)
        # Backups are deleted by whoever reaches where they are kept.
        backend = self._backend(work['backend']) if work['backend'] else None
        return handler(backend, work, **work['args']) or {}

    def _backend(self, name):
        found = self.backends.get(name)
        if found is None:
            raise Fault('back-end', f'This host has no back end {name!r} any more.', final=True)
        if found.error:
            raise Fault('back-end', found.error)
        return found

    @contextlib.contextmanager
    def _passing(self, name):
        """The path of a file that is gone at the end."""
        path = os.path.join(self.folder, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    @contextlib.contextmanager
    def _secret(self, encryption, id=qemu_img.KEY):
        """The secrets that a volume needs: a list of none or one."""
        if not encryption:
            yield []
            return
        with qemu_img.Secret(self.passphrase(encryption['key_id']), id) as secret:
            yield [secret]

    # Volumes

    def _create_volume(self, backend, work, volume_id, size, source, encryption=None):
        driver, name = backend.driver, base.volume(volume_id)
        length = bytes_of(size, encryption)
        if driver.size(name) is not None:
            # It was made, and perhaps not reported; one that was cloned may have to grow yet.
            driver.extend(name, length)
            return
        getattr(self, '_from_' + source['type'])(driver, name, length, source, encryption)

    def _from_none(self, driver, name, length, source, encryption):
        if not encryption:
            driver.create(name, length)
            return
        with self._passing(name) as path:
            self._header(path, encryption)
            driver.load(name, path, length)

    def _header(self, path, encryption):
        """A file with an empty LUKS container."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
            file.write(luks.header(self.passphrase(encryption['key_id']), encryption['key_size'] // 8))

    def _from_image(self, driver, name, length, source, encryption):
        with self.images.raw(source['image']) as path:
            size, room = os.path.getsize(path), length - (luks.OVERHEAD if encryption else 0)
            if size > room:
                raise Fault('image', f'The image is {-(-size // GIB)} GiB large and does not fit into a volume of {room // GIB} '
                                     'GiB: ask for a larger volume.', final=True)
            self._fill(driver, name, length, path, encryption)

    def _fill(self, driver, name, length, path, encryption):
        """A new volume of the content of a raw file."""
        if encryption:
            with driver.making(name, length) as node, self._secret(encryption) as secrets:
                if node is not None:
                    self._encrypt(base.Node.of_path(path), node, name, encryption, secrets)
        else:
            driver.load(name, path, length)

    def _encrypt(self, source, node, name, encryption, secrets, **options):
        """Make ``node`` a LUKS container with the content of ``source``."""
        with self._passing(name) as path:
            self._header(path, encryption)
            qemu_img.convert(base.Node.of_path(path), node)
        # What is zeros inside is no zeros outside: all has to be written.
        qemu_img.convert(source, qemu_img.luks(node), *secrets, zeros=False, **options)

    def _from_snapshot(self, driver, name, length, source, encryption):
        driver.clone(base.snapshot(source['snapshot_id']), name, length)

    def _from_volume(self, driver, name, length, source, encryption):
        other = self._backend(source['backend'])
        if other.driver is driver:
            driver.clone(base.volume(source['volume_id']), name, length)
            return
        with driver.making(name, length) as node:
            if node is not None:
                qemu_img.convert(other.driver.open(base.volume(source['volume_id'])), node, share=True)

    def _from_connection(self, driver, name, length, source, encryption):
        kind, data = source['connection']['driver_volume_type'], source['connection']['data']
        secrets, objects = [], []
        if kind == 'iscsi':
            node = {'driver': 'iscsi', 'transport': 'tcp', 'portal': data['target_portal'], 'target': data['target_iqn'],
                    'lun': data['target_lun'], 'user': data['auth_username'], 'password-secret': qemu_img.KEY}
            secrets = [qemu_img.Secret(data['auth_password'].encode())]
        elif kind == 'nbd':
            node = {'driver': 'nbd', 'server': {'type': 'inet', 'host': data['host'], 'port': str(data['port'])},
                    'export': data['export'], **({'tls-creds': 'tls'} if data.get('tls') else {})}
            objects = ['--object', f'tls-creds-x509,id=tls,dir={NBD_CERTIFICATES},endpoint=client'] if data.get('tls') else []
        elif kind == 'rbd':
            pool, _, image = data['name'].partition('/')
            node = {'driver': 'rbd', 'pool': pool, 'image': image, 'user': data['auth_username']}
        else:
            raise Fault('invalid', f'This host cannot copy from a volume that is reached by {kind!r}.', final=True)
        with contextlib.ExitStack() as stack:
            for secret in secrets:
                stack.enter_context(secret)
            target = stack.enter_context(driver.making(name, length))
            if target is not None:
                qemu_img.convert(base.Node({'driver': 'raw', 'file': node}), target, *secrets, objects=objects)

    def _delete_volume(self, backend, work, volume_id):
        name = base.volume(volume_id)
        for left in (base.part(name), name + NEW, base.part(name + NEW), name):
            backend.driver.delete(left)

    def _extend_volume(self, backend, work, volume_id, size, attached=False, encryption=None):
        if attached and not backend.online_extend:
            raise Fault('in-use', f'A volume of this back end cannot grow while it is attached by {backend.protocol}: detach it '
                                  'first.', final=True)
        backend.driver.extend(base.volume(volume_id), bytes_of(size, encryption))
        if attached:
            backend.resize(volume_id)

    def _revert_volume(self, backend, work, volume_id, snapshot_id, size):
        backend.driver.revert(base.volume(volume_id), base.snapshot(snapshot_id))

    def _retype_volume(self, backend, work, volume_id, size, old_encryption=None, new_encryption=None):
        driver, name = backend.driver, base.volume(volume_id)
        mark = os.path.join(self.folder, f'retyped-{work["number"]}')
        # Who looks at the volume does not see which key its bytes need; so what was done is noted.
        if not os.path.exists(mark):
            with self._secret(old_encryption, OLD_KEY) as old, self._secret(new_encryption) as new:
                source = driver.open(name)
                source = qemu_img.luks(source, OLD_KEY) if old_encryption else source
                with driver.making(name + NEW, bytes_of(size, new_encryption)) as node:
                    if node is None:
                        pass
                    elif new_encryption:
                        self._encrypt(source, node, name, new_encryption, [*old, *new])
                    else:
                        qemu_img.convert(source, node, *old)
            with open(mark, 'w', encoding='utf-8') as file:
                json.dump(work, file)
                file.flush()
                os.fsync(file.fileno())
        self._replace(driver, name)

    @staticmethod
    def _replace(driver, name):
        """Put what was made beside a volume in its place."""
        if driver.size(name + NEW) is not None:
            driver.delete(name)
            driver.rename(name + NEW, name)

    def forget(self, number):
        """The conductor has taken note of the outcome of a work."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, f'retyped-{number}'))

    def _reimage_volume(self, backend, work, volume_id, size, image, encryption=None, image_id=None):
        driver, name = backend.driver, base.volume(volume_id)
        driver.delete(name + NEW)
        self._from_image(driver, name + NEW, bytes_of(size, encryption), {'image': image}, encryption)
        self._replace(driver, name)
        backend.reopen(volume_id)

    # Snapshots

    def _create_snapshot(self, backend, work, snapshot_id, volume_id, size=None):
        backend.driver.snapshot(base.snapshot(snapshot_id), base.volume(volume_id))

    def _create_snapshots(self, backend, work, snapshots):
        backend.snapshots([(base.snapshot(each['snapshot_id']), base.volume(each['volume_id'])) for each in snapshots])

    def _delete_snapshot(self, backend, work, snapshot_id, volume_id):
        backend.driver.delete_snapshot(base.snapshot(snapshot_id), base.volume(volume_id))

    # What others made

    def _manage_volume(self, backend, work, volume_id, reference):
        driver, name = backend.driver, base.volume(volume_id)
        length = driver.manage(self._reference(driver, name, reference), name)
        size = -(-length // GIB)
        driver.extend(name, size * GIB)
        return {'size': size}

    def _manage_snapshot(self, backend, work, snapshot_id, volume_id, reference):
        driver, name = backend.driver, base.snapshot(snapshot_id)
        return {'size': -(-driver.manage(self._reference(driver, name, reference), name) // GIB)}

    @staticmethod
    def _reference(driver, name, reference):
        wanted = reference.get('source-name')
        if not isinstance(wanted, str) or not wanted:
            raise Fault('invalid', 'The reference needs the field source-name.', final=True)
        there = {found for found, _size in driver.listing()}
        # What was left here goes by its old name too.
        return next((each for each in (wanted, LEFT + wanted) if each in there), wanted)

    def _unmanage_volume(self, backend, work, volume_id):
        name = base.volume(volume_id)
        if backend.driver.size(name) is not None:
            backend.driver.rename(name, LEFT + name)

    def _unmanage_snapshot(self, backend, work, snapshot_id, volume_id):
        name = base.snapshot(snapshot_id)
        if backend.driver.size(name) is not None:
            backend.driver.rename(name, LEFT + name)

    # Images and backups

    @contextlib.contextmanager
    def _still(self, backend, volume_id, id, snapshot_id=None):
        """The node of what a volume holds, at rest: of a snapshot, of one made for the while where it is attached, or its own."""
        driver, name = backend.driver, base.volume(volume_id)
        if snapshot_id is not None:
            yield driver.open(base.snapshot(snapshot_id))
        elif not backend.exported(volume_id):
            yield driver.open(name)
        else:
            passing = base.snapshot(id)
            driver.snapshot(passing, name)
            try:
                yield driver.open(passing)
            finally:
                driver.delete_snapshot(passing, name)

    def _copy_to_image(self, backend, work, volume_id, image_id, disk_format, container_format='bare', encryption=None):
        format = diskimage.FORMATS.get(disk_format)
        if format is None or container_format not in ('bare', None):
            raise Fault('image', f'A volume cannot be uploaded as {disk_format} in {container_format}.', final=True)
        with contextlib.ExitStack() as stack:
            node = stack.enter_context(self._still(backend, volume_id, image_id))
            path = node.path
            if encryption or format != 'raw' or path is None:
                secrets = stack.enter_context(self._secret(encryption))
                path = stack.enter_context(self._passing(f'image-{image_id}'))
                qemu_img.convert_to_file(qemu_img.luks(node) if encryption else node, format, path, *secrets, share=True)
            self.images.upload(image_id, path, disk_format, container_format or 'bare')
            with open(path, 'rb') as file:
                return {'size': file.seek(0, os.SEEK_END)}

    def _the_store(self):
        if self.store is None:
            raise Fault('backup', 'This host keeps no backups.', final=True)
        return self.store

    def _create_backup(self, backend, work, backup_id, volume_id, size, snapshot_id=None, container=None, parent=None,
                       encryption=None, **_more):
        store = self._the_store()
        container = container or store.container
        with contextlib.ExitStack() as stack:
            node = stack.enter_context(self._still(backend, volume_id, backup_id, snapshot_id))
            path = node.path
            if path is None:
                path = stack.enter_context(self._passing(f'backup-{backup_id}'))
                qemu_img.convert_to_file(node, 'raw', path, share=True)
            file = stack.enter_context(open(path, 'rb'))
            length = file.seek(0, os.SEEK_END)
            try:
                record = archive.create(store, container, backup_id, file.fileno(), length, parent,
                                        {'volume_id': volume_id, 'encrypted': bool(encryption)})
            except BaseException:
                with contextlib.suppress(Fault):
                    archive.delete(store, container, backup_id)
                raise
        return {'record': record}

    def _delete_backup(self, backend, work, backup_id, record=None, container=None, **_more):
        store = self._the_store()
        archive.delete(store, (record or {}).get('container') or container or store.container, backup_id)

    def _restore_backup(self, backend, work, backup_id, volume_id, size, records, **_more):
        driver, name = backend.driver, base.volume(volume_id)
        length = max(size * GIB, driver.size(name) or 0, records[-1]['metadata'].get('length', 0))
        driver.delete(name + NEW)
        with contextlib.ExitStack() as stack:
            node = stack.enter_context(driver.making(name + NEW, length))
            path = node.path or stack.enter_context(self._passing(f'restore-{backup_id}-{volume_id}'))
            with open(path, 'r+b' if node.path else 'w+b') as file:
                if not node.path:
                    os.ftruncate(file.fileno(), length)
                archive.restore(self._the_store(), records[-1], file.fileno())
                os.fsync(file.fileno())
            if not node.path:
                qemu_img.convert(base.Node.of_path(path), node)
        self._replace(driver, name)


def decoded(answer):
    """The passphrase in the conductor's answer to ``key``."""
    return base64.b64decode(answer['passphrase'])


