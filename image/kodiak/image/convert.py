"""Conversion between disk formats by qemu-img, in a process with little memory, time, files and disk, and no environment."""
import json
import logging
import os
import re
import shutil
import subprocess
import threading

from kodiak.common import errors

LOG = logging.getLogger(__name__)
#: Formats by the names that qemu-img has for them. What is in here can be converted, and converted to.
QEMU = {'raw': 'raw', 'qcow2': 'qcow2', 'vmdk': 'vmdk', 'vdi': 'vdi', 'vhd': 'vpc', 'vhdx': 'vhdx'}
MEMORY = 2 << 30
CPU_SECONDS = 4 * 3600
SECONDS = 6 * 3600
INFO_SECONDS = 60
#: Few arenas: each reserves address space, which is limited.
ENVIRONMENT = {'PATH': os.defpath, 'LC_ALL': 'C', 'MALLOC_ARENA_MAX': '2'}
#: The largest disk that little data may describe, and how many times its size the data may describe.
FREE, RATIO = 32 << 30, 1000
OPTIONS = {'vmdk': ['-o', 'subformat=streamOptimized'], 'vhd': ['-o', 'subformat=dynamic']}


def confined(command, file_size):
    """A command under limits: its address space, CPU time, files and the size of what it writes."""
    return ['prlimit', f'--as={MEMORY}', f'--cpu={CPU_SECONDS}', '--nofile=64', '--core=0', f'--fsize={file_size}', '--',
            'nice', '-n', '10', *command]


def _run(command, folder, file_size, seconds, progress=None):
    """The output of a confined command; ``BadRequest`` where it fails."""
    try:
        process = subprocess.Popen(confined(command, file_size), cwd=folder, env=ENVIRONMENT,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise errors.Unavailable('This host cannot convert images: prlimit is missing.') from None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    complaint = []
    listener = threading.Thread(target=lambda: complaint.append(process.stderr.read(65536)), daemon=True)
    listener.start()
    output = []
    try:
        while data := process.stdout.read1(65536):
            output.append(data)
            if progress is not None:
                progress(data)
        code = process.wait()
        listener.join(5)
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    if code == 127:
        raise errors.Unavailable('This host cannot convert images: qemu-img is missing.')
    if code:
        said = b''.join(complaint).decode(errors='replace').strip().splitlines()
        LOG.warning('%s ended with %d: %s', command[0], code, said)
        reason = re.sub(r"'?/[^\s:']+'?", 'the image', said[-1]) if said else f'it ended with {code}'
        raise errors.BadRequest(f'The image cannot be converted: {reason[:200]}')
    return b''.join(output)


def check(path, declared, folder):
    """What qemu-img says of an image that has been inspected already; ``BadRequest`` where it refers to anything else."""
    told = json.loads(_run(['qemu-img', 'info', '--output=json', '-f', QEMU[declared], path], folder, 0, INFO_SECONDS))
    special = told.get('format-specific', {}).get('data', {})
    if told.get('backing-filename') or told.get('full-backing-filename') or special.get('data-file'):
        raise errors.BadRequest('The image refers to another file.')
    if told.get('encrypted'):
        raise errors.BadRequest('The image is encrypted and cannot be converted.')
    extents = special.get('extents', [])
    if len(extents) > 1 or any(os.path.basename(extent.get('filename', '')) != os.path.basename(path) for extent in extents):
        raise errors.BadRequest('The image refers to another file.')
    return told


def convert(path, declared, target, folder, limit, tell=None):
    """Convert a file into ``folder``; returns the new one's path.

    :param limit: bytes that the result, and the disk that it describes, may have. Less where the data describes
        more than :data:`RATIO` times itself.
    :param tell: ``tell(text)``, called as it gets on. :raises BadRequest: it cannot be done, or is too large.
    """
    told = check(path, declared, folder)
    # Nothing is worth hashing for hours.
    size = os.path.getsize(path)
    limit = min(limit, max(FREE, RATIO * size))
    if told['virtual-size'] > limit:
        raise errors.RequestTooLarge(f"The disk in the image has {told['virtual-size']} bytes; {limit} are allowed where the data "
                                     f'has {size}.')
    made = os.path.join(folder, 'converted')
    if os.path.exists(made):
        os.unlink(made)

    def progress(data):
        found = re.findall(rb'\((\d+)\.\d+/100%\)', data)
        if found and tell is not None:
            tell(f'Converted {int(found[-1])} %')
    # Room for the tables of the new format beside the data.
    size = limit + limit // 50 + (64 << 20)
    command = ['qemu-img', 'convert', '-p', '-f', QEMU[declared], '-O', QEMU[target], *OPTIONS.get(target, ()), path, made]
    _run(command, folder, size, SECONDS, progress)
    return made


class Scratch:
    """A folder for one conversion, which is empty at its beginning and gone at its end."""

    def __init__(self, state_path, name):
        self.path = os.path.join(state_path, 'image', 'scratch', name)

    def __enter__(self):
        shutil.rmtree(self.path, ignore_errors=True)
        os.makedirs(self.path, mode=0o700)
        return self.path

    def __exit__(self, *error):
        shutil.rmtree(self.path, ignore_errors=True)
