"""The folder of one instance: its disks and the record of what was done to it.

Every file is made under another name and renamed when it is whole, so that a file that is there is whole. Disks
belong to the group of the instances folder, which the user that QEMU runs as is a member of; nobody else may
read them.
"""
import dataclasses
import json
import os
import shutil
import struct
import subprocess
import tempfile

from kodiak.compute import metadata
from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import qemu_img
from kodiak.compute.drivers.libvirt.domain import Disk

GIB, MIB = 1 << 30, 1 << 20
PART = '.part'
MODE = 0o2750       # set-gid: whatever is made inside belongs to the group of the instances folder


class Folder:
    """``<instances>/<uuid>``.

    :param root: the folder of all instances.
    :param cache: the :class:`~.cache.Cache`.
    """

    def __init__(self, root, uuid, cache):
        self.uuid = uuid
        self.path = os.path.join(root, uuid)
        self.cache = cache

    def file(self, name):
        return os.path.join(self.path, name)

    @property
    def console_log(self):
        return self.file('console.log')

    def make(self):
        """Make the folder itself. Set-gid is inherited from the parent and gives its group to every file."""
        if not os.path.isdir(self.path):
            os.makedirs(self.path)
            os.chmod(self.path, MODE)

    def remove(self):
        """Remove everything."""
        if os.path.isdir(self.path):
            shutil.rmtree(self.path)

    # The record

    def load(self):
        """The :class:`base.Record`, or None."""
        try:
            with open(self.file('record.json'), encoding='utf-8') as file:
                data = json.load(file)
        except FileNotFoundError:
            return None
        known = {field.name for field in dataclasses.fields(base.Record)}
        return base.Record(**{name: value for name, value in data.items() if name in known})

    def save(self, record):
        """Write the record so that either the old or the new one survives a crash."""
        self.make()
        path = self.file('record.json')
        with open(path + PART, 'w', encoding='utf-8') as file:
            json.dump(dataclasses.asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + PART, path)

    # Disks

    def build(self, spec, rescued):
        """Make every disk of the instance that is not there yet.

        :raises base.Fault: ``disk-too-small`` where the image does not fit the flavor, and those of the cache.
        """
        self.make()
        if spec.image and not os.path.exists(self.file('root.qcow2')):
            self._root(spec)
        for index, disk in enumerate(ephemerals(spec)):
            self._ephemeral(index, disk)
        if spec.flavor.swap and not os.path.exists(self.file('swap.raw')):
            self._blank('swap.raw', spec.flavor.swap * MIB, ['mkswap', '-q'])
        if spec.config_drive and not os.path.exists(self.file('config.iso')):
            self.write_config_drive(spec)
        if rescued and spec.rescue and not os.path.exists(self.file('rescue.qcow2')):
            found = self.cache.get(spec.rescue)
            self._made('rescue.qcow2', lambda part: qemu_img.create_overlay(part, found.path, found.format))

    def _root(self, spec):
        found = self.cache.get(spec.image)
        size = spec.flavor.root * GIB
        if spec.image.disk_format == 'iso':
            self._made('root.qcow2', lambda part: qemu_img.create(part, size or GIB))
            return
        if size and found.size > size:
            raise base.Fault('disk-too-small', f'The image needs {-(-found.size // GIB)} GiB of disk and the flavor has '
                                               f'{spec.flavor.root} GiB.', final=True)
        # A disk is a whole number of sectors, whatever the file that it came as.
        size = max(size, -(-found.size // 512) * 512)
        self._made('root.qcow2', lambda part: qemu_img.create_overlay(part, found.path, found.format, size))

    def _ephemeral(self, index, disk):
        name = f'ephemeral{index}.raw'
        if os.path.exists(self.file(name)):
            return
        kind = disk.get('format') or 'ext4'
        tool = shutil.which(f'mkfs.{kind}', path='/usr/sbin:/sbin:/usr/bin:/bin') if kind.isalnum() else None
        if tool is None:
            raise base.Fault('no-file-system', f'This host cannot format a disk as {kind}.', final=True)
        force = ['-q', '-F'] if kind.startswith('ext') else []
        self._blank(name, disk['size'] * GIB, [tool, *force, '-n' if kind == 'vfat' else '-L', f'ephemeral{index}'])

    def _blank(self, name, size, command):
        def make(part):
            with open(part, 'wb') as file:
                file.truncate(size)
            done = subprocess.run([*command, part], capture_output=True, check=False, timeout=600,
                                  env={'PATH': '/usr/sbin:/sbin:/usr/bin:/bin'})
            if done.returncode:
                raise base.Fault('disk', f'{os.path.basename(command[0])} failed: '
                                         f'{done.stderr.decode(errors="replace").strip()[-200:]}')
        self._made(name, make)

    def write_config_drive(self, spec):
        """Make the config drive, anew if there is one."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix='config.') as tree:
            for path, data in metadata.config_drive(spec).items():
                target = os.path.join(tree, path)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, 'wb') as file:
                    file.write(data)

            def make(part):
                done = subprocess.run(['genisoimage', '-quiet', '-J', '-r', '-l', '-ldots', '-allow-lowercase',
                                       '-allow-multidot', '-V', 'config-2', '-o', part, tree],
                                      capture_output=True, check=False, timeout=120)
                if done.returncode:
                    raise base.Fault('config-drive', 'genisoimage failed: '
                                     + done.stderr.decode(errors='replace').strip()[-200:])
            self._made('config.iso', make, mode=0o640)

    def _made(self, name, make, mode=0o660):
        path = self.file(name)
        part = path + PART
        if os.path.exists(part):
            os.unlink(part)
        try:
            make(part)
            os.chmod(part, mode)
        except OSError as error:
            raise base.Fault('no-disk-space' if error.errno == 28 else 'disk',
                             f'The disk could not be made on the host: {error.strerror}.')
        os.replace(part, path)

    def disks(self, spec, rescued):
        """The :class:`Disk` list of what is here, in the order in which the guest sees it."""
        disks = []
        if rescued and spec.rescue:
            disks.append(Disk('rescue', self.file('rescue.qcow2')))
        if spec.image:
            disks.append(Disk('root', self.file('root.qcow2')))
            if spec.image.disk_format == 'iso':
                found = self.cache.get(spec.image)
                disks.append(Disk('install', found.path, found.format, 'cdrom', read_only=True))
        disks.extend(Disk('ephemeral', self.file(f'ephemeral{index}.raw'), 'raw')
                     for index, _ in enumerate(ephemerals(spec)))
        if spec.flavor.swap:
            disks.append(Disk('swap', self.file('swap.raw'), 'raw'))
        if spec.config_drive:
            disks.append(Disk('config', self.file('config.iso'), 'raw', 'cdrom', read_only=True))
        return disks

    def missing(self, spec, rescued):
        """The names of disks that should be here and are not."""
        return [os.path.basename(disk.path) for disk in self.disks(spec, rescued) if not os.path.exists(disk.path)]

    def forget(self, *names):
        """Remove files, and what is left of their making."""
        for name in names:
            for path in (self.file(name), self.file(name + PART)):
                if os.path.exists(path):
                    os.unlink(path)

    def own_disks(self):
        """The names of all writable disks of the instance that are here."""
        return sorted(name for name in os.listdir(self.path)
                      if name == 'root.qcow2' or (name.endswith('.raw') and name.startswith(('ephemeral', 'swap'))))

    def rebuild(self, preserve_ephemeral):
        """Throw away the disks that a rebuild makes anew."""
        names = ['root.qcow2', 'config.iso', 'rescue.qcow2']
        if not preserve_ephemeral:
            names += [name for name in self.own_disks() if name.endswith('.raw')]
        self.forget(*names)

    # Resize: the old disks are kept until it is confirmed or reverted

    def kept(self):
        """The folder of kept disks, or None."""
        names = [name for name in os.listdir(self.path) if name.startswith('kept-') and not name.endswith(PART)]
        return self.file(names[0]) if names else None

    def keep(self, number):
        """Keep a copy of the disks for the resize with this operation number. A copy of another one is thrown away."""
        name = f'kept-{number}'
        for other in os.listdir(self.path):
            if other.startswith('kept-') and other != name:
                shutil.rmtree(self.file(other))
        if os.path.isdir(self.file(name)):
            return
        part = self.file(name + PART)
        os.mkdir(part)
        os.chmod(part, MODE)
        for disk in self.own_disks():
            copy(self.file(disk), os.path.join(part, disk))
        os.rename(part, self.file(name))

    def drop_kept(self):
        """The resize is confirmed."""
        path = self.kept()
        if path:
            shutil.rmtree(path)

    def restore_kept(self):
        """The resize is reverted: the kept disks take their places again. Goes on where a crash stopped it."""
        path = self.kept()
        if path is None:
            return
        for name in os.listdir(path):
            os.replace(os.path.join(path, name), self.file(name))
        os.rmdir(path)

    def grow(self, spec):
        """Make the disks fit the flavor of the spec.

        :raises base.Fault: ``disk-too-small`` if the root disk would have to shrink.
        """
        root, size = self.file('root.qcow2'), spec.flavor.root * GIB
        if os.path.exists(root) and size:
            now = qemu_img.info(root, 'qcow2')['virtual-size']
            if now > size:
                raise base.Fault('disk-too-small', f'The root disk has {-(-now // GIB)} GiB and cannot shrink to '
                                                   f'{spec.flavor.root} GiB.', final=True)
            if now < size:
                qemu_img.run('resize', '-q', '-f', 'qcow2', root, size)
        swap = self.file('swap.raw')
        if os.path.exists(swap) and os.path.getsize(swap) != spec.flavor.swap * MIB:
            os.unlink(swap)
        self.build(spec, rescued=False)


def ephemerals(spec):
    """The ephemeral disks of a spec: ``[{'size': GiB, 'format': str or None}]``."""
    if spec.ephemerals is not None:
        return spec.ephemerals
    return [{'size': spec.flavor.ephemeral}] if spec.flavor.ephemeral else []


def copy(source, target):
    """Copy a disk: by reflink where the file system can, else without its holes."""
    done = subprocess.run(['cp', '--reflink=auto', '--sparse=always', '--preserve=mode', source, target],
                          capture_output=True, check=False)
    if done.returncode:
        complaint = done.stderr.decode(errors='replace').strip()[-200:]
        raise base.Fault('no-disk-space' if 'No space' in complaint else 'disk', f'A disk could not be copied: {complaint}')


def backing_file(path):
    """The path of the base of a qcow2 file, read from its header; None where it has none."""
    with open(path, 'rb') as file:
        head = file.read(20)
        if len(head) < 20:
            return None
        magic, _version, offset, length = struct.unpack('>4sIQI', head)
        if magic != b'QFI\xfb' or not offset or length > 1023:
            return None
        file.seek(offset)
        return file.read(length).decode()


def used_bases(root):
    """The cache keys of all bases under any disk of any instance (kept disks too)."""
    used = set()
    for folder, _folders, files in os.walk(root):
        for name in files:
            if name.endswith(('.qcow2', '.qcow2' + PART)):
                try:
                    found = backing_file(os.path.join(folder, name))
                except FileNotFoundError:
                    continue
                if found:
                    used.add(os.path.basename(found))
    return used
