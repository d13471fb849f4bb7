"""Small images of each format, usable ones and others, and their manifest as Tempest's tests of image formats read it."""
import pathlib
import shutil
import struct
import subprocess

import yaml

SIZE = 16 << 20
#: Name: disk format, format and options of qemu-img.
USABLE = {
    'usable.raw': ('raw', 'raw', ''), 'usable.qcow2': ('qcow2', 'qcow2', ''), 'usable-v2.qcow2': ('qcow2', 'qcow2', 'compat=0.10'),
    'usable.vmdk': ('vmdk', 'vmdk', 'subformat=streamOptimized'),
    'usable-sparse.vmdk': ('vmdk', 'vmdk', 'subformat=monolithicSparse'),
    'usable.vdi': ('vdi', 'vdi', ''), 'usable.vhd': ('vhd', 'vpc', ''), 'usable.vhdx': ('vhdx', 'vhdx', ''),
}


def make(folder):
    """Make them in a folder, unless they are there; returns the path of the manifest, or None where qemu-img is missing."""
    folder = pathlib.Path(folder)
    manifest = folder / 'manifest.yaml'
    if manifest.exists():
        return manifest
    if not shutil.which('qemu-img'):
        return None
    folder.mkdir(exist_ok=True)
    raw = folder / 'usable.raw'
    with open(raw, 'wb') as file:
        file.write(b'sample' * 10000)
        file.truncate(SIZE)
    images = []
    for name, (disk_format, kind, options) in USABLE.items():
        if name != raw.name:
            chosen = ['-o', options] if options else []
            subprocess.run(['qemu-img', 'convert', '-O', kind, *chosen, raw, folder / name], check=True)
        images.append({'name': name, 'format': disk_format, 'filename': name, 'usable': True})
    images.append({'name': 'usable.iso', 'format': 'iso', 'filename': 'usable.iso', 'usable': True})
    (folder / 'usable.iso').write_bytes(_iso())
    for name, (disk_format, data) in _hostile(folder).items():
        (folder / name).write_bytes(data)
        images.append({'name': name, 'format': disk_format, 'filename': name, 'usable': False})
    manifest.write_text(yaml.safe_dump({'images': images}))
    return manifest


def _iso():
    volume = bytearray(2048)
    volume[:7] = b'\x01CD001\x01'
    struct.pack_into('<L', volume, 80, 100)
    struct.pack_into('<H', volume, 128, 2048)
    return bytes(32768) + bytes(volume) + bytes(100 << 11)


def _hostile(folder):
    """Images that refer to other files, or are not what they say: ``{name: (disk format, data)}``."""
    sound = (folder / 'usable.qcow2').read_bytes()
    backed = bytearray(sound)
    struct.pack_into('>QI', backed, 8, 512, 11)
    backed[512:523] = b'/etc/passwd'
    outside = bytearray(sound)
    outside[79] |= 4
    flat = (b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
            b'RW 2048 FLAT "/etc/passwd" 0\n')
    return {'backing-file.qcow2': ('qcow2', bytes(backed)), 'data-file.qcow2': ('qcow2', bytes(outside)),
            'flat.vmdk': ('vmdk', flat), 'nothing.qcow2': ('qcow2', bytes(1 << 20))}
