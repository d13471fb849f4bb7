"""qemu-img on files that strangers sent: inspected first, and run within limits.

A crafted image can name other files of the host as its backing or data file, or make the tool eat memory and
time. So a downloaded file is looked at by oslo.utils' inspector, which only reads headers, its format is always
said and never guessed by QEMU, and the tool runs with bounded memory and processor time.
"""
import json
import os
import subprocess

from kodiak.common import diskimage
from kodiak.compute.drivers import base

MEMORY = 2 << 30        # bytes of address space
CPU_SECONDS = 1800


def run(*args, timeout=3600):
    """Run ``qemu-img`` and return what it printed.

    :raises base.Fault: ``qemu-img`` with its last line of complaint; ``no-disk-space`` where that was the cause.
    """
    command = ['prlimit', f'--as={MEMORY}', f'--cpu={CPU_SECONDS}', '--', 'qemu-img', *map(str, args)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False,
                              env={'PATH': os.environ.get('PATH', '/usr/bin:/bin'), 'LC_ALL': 'C'})
    except subprocess.TimeoutExpired:
        raise base.Fault('qemu-img', f'qemu-img {args[0]} did not end in {timeout} s.')
    if done.returncode:
        complaint = done.stderr.decode(errors='replace').strip().splitlines()
        complaint = complaint[-1] if complaint else f'exit status {done.returncode}'
        if 'No space left' in complaint:
            raise base.Fault('no-disk-space', 'The host has no disk space left.')
        raise base.Fault('qemu-img', f'qemu-img {args[0]} failed: {complaint}')
    return done.stdout


def info(path, format, running=False):
    """``qemu-img info`` of a file of a known format, as a dictionary.

    :param running: the file is in use by a guest; what is read may be a moment old.
    """
    share = ['-U'] if running else []
    return json.loads(run('info', *share, '-f', format, '--output=json', path))


def create_overlay(path, base_path, base_format, size=None):
    """A qcow2 file at ``path`` that starts as ``base_path`` and is ``size`` bytes large (as large as it, if None)."""
    run('create', '-q', '-f', 'qcow2', '-F', base_format, '-b', base_path, path, *([size] if size else []))


def create(path, size, format='qcow2'):
    """An empty disk of ``size`` bytes."""
    run('create', '-q', '-f', format, path, size)


def inspect(path, disk_format):
    """What a downloaded file really is: the QEMU name of its format, and its virtual size in bytes.

    :raises base.Fault: ``image-invalid`` if it is not what the image service said, or is not safe to use.
    """
    try:
        wanted = diskimage.judge(path, disk_format)
    except diskimage.Refused as refused:
        raise base.Fault('image-invalid', str(refused), final=True)
    size = os.path.getsize(path) if wanted == 'raw' else info(path, wanted)['virtual-size']
    return wanted, size
