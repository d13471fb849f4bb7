"""qemu-img within limits: on data of strangers too, with secrets that no list of processes shows.

A crafted image can name other files of the host, or make the tool eat memory and time. So what was sent is looked at by
oslo.utils' inspector, which reads headers only; a format is always said and never guessed by QEMU; the tool has
bounded memory. What it opens is given as a :class:`~kodiak.storage_block.drivers.base.Node`.
"""
import json
import os
import signal
import subprocess

from kodiak.storage_block.drivers import base

MEMORY = 2 << 30        # bytes of address space
# What an image service calls a format, and what QEMU calls it.
FORMATS = {'qcow2': 'qcow2', 'raw': 'raw', 'iso': 'raw', 'ami': 'raw', 'vmdk': 'vmdk', 'vdi': 'vdi', 'vhd': 'vpc',
           'vhdx': 'vhdx', 'ploop': 'parallels'}
KEY = 'key0'


class Secret:
    """A passphrase (bytes, of text: QEMU takes no other) that a tool reads from a file which has no name. A context manager."""

    def __init__(self, passphrase):
        self.fd = os.memfd_create('secret', 0)
        os.write(self.fd, passphrase)

    def options(self):
        """The arguments that tell the tool."""
        return ['--object', f'secret,id={KEY},file=/dev/fd/{self.fd}']

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


def run(*args, secret=None, tool='qemu-img', timeout=None):
    """Run ``qemu-img`` and return what it printed. :raises base.Fault: ``qemu-img``, ``no-space``."""
    command = ['prlimit', f'--as={MEMORY}', '--', tool, *map(str, args)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout, check=False, pass_fds=[secret.fd] if secret else [],
            env={'PATH': os.environ.get('PATH', '/usr/bin:/bin'), 'LC_ALL': 'C'})
    except subprocess.TimeoutExpired:
        raise base.Fault('qemu-img', f'{tool} {args[0]} did not end in {timeout} s.')
    if done.returncode:
        complaint = done.stderr.decode(errors='replace').strip().splitlines()
        complaint = complaint[-1] if complaint else _died(done.returncode)
        if 'No space left' in complaint:
            raise base.Fault('no-space', 'The back end has no space left.')
        raise base.Fault('qemu-img', f'{tool} {args[0]} failed: {complaint[:300]}')
    return done.stdout


def _died(code):
    return f'ended by {signal.Signals(-code).name}' if code < 0 else f'exit status {code}'


def json_name(node, share=False):
    """A node as a file name that qemu-img takes."""
    options = dict(node.options, **({'force-share': True} if share else {}))
    return 'json:' + json.dumps(options)


def info(node, secret=None, share=True):
    """``qemu-img info`` as a dictionary."""
    args = ['info', *(secret.options() if secret else []), '--output=json', json_name(node, share)]
    return json.loads(run(*args, secret=secret))


def convert(source, target, secret=None, share=False, zeros=True):
    """Copy all of ``source`` into ``target``, which is there and at least as large.

    :param secret: the :class:`Secret` that nodes with ``key-secret`` mean.
    :param share: ``source`` may be in use.
    :param zeros: ``target`` reads as zeros, so holes need not be written.
    """
    run('convert', '-n', *(['--target-is-zero'] if zeros else []), *(secret.options() if secret else []),
        *(['-U'] if share else []), '--image-opts', '--target-image-opts', _opts(source), _opts(target), secret=secret)


def convert_to_file(source, format, path, secret=None, share=False):
    """A new file of another format with the content of ``source``."""
    run('convert', '-O', format, *(secret.options() if secret else []), *(['-U'] if share else []), '--image-opts', _opts(source),
        path, secret=secret)


def _opts(node):
    """A node in the form of --image-opts: ``driver=raw,file.driver=file,file.filename=...``."""
    flat = []

    def walk(prefix, value):
        if isinstance(value, dict):
            for name, below in value.items():
                walk(f'{prefix}.{name}' if prefix else name, below)
        elif isinstance(value, list):
            for number, below in enumerate(value):
                walk(f'{prefix}.{number}', below)
        else:
            text = {True: 'on', False: 'off'}.get(value, value) if isinstance(value, bool) else value
            flat.append(f'{prefix}={str(text).replace(",", ",,")}')
    walk('', node.options)
    return ','.join(flat)


def luks(node):
    """The node of what is inside the LUKS container ``node``; it needs a :class:`Secret`."""
    return base.Node({'driver': 'luks', 'key-secret': KEY, 'file': node.options['file'] if node.path else node.options})


def inspect(path, disk_format):
    """What a downloaded file really is: the QEMU name of its format, and its virtual size in bytes.

    :raises base.Fault: ``image`` if it is not what the image service said, or is not safe to use.
    """
    from oslo_utils.imageutils import format_inspector

    if disk_format not in FORMATS:
        raise base.Fault('image', f'A volume cannot be made from an image of the format {disk_format!r}.', final=True)
    try:
        found = format_inspector.detect_file_format(path)
        found.safety_check()
    except (format_inspector.ImageFormatError, format_inspector.SafetyCheckFailed) as error:
        raise base.Fault('image', f'The image is not safe to use: {error}', final=True)
    name, wanted = str(found), FORMATS[disk_format]
    # A whole-disk image begins with a partition table, which the inspector names; as a format it is raw.
    name = 'raw' if name in ('gpt', 'iso', 'raw', 'luks') else {'vhd': 'vpc'}.get(name, name)
    if name != wanted:
        raise base.Fault('image', f'The image says {disk_format}, but its data is {name}.', final=True)
    if wanted == 'raw':
        return wanted, os.path.getsize(path)
    return wanted, info(base.Node.of_path(path, wanted), share=False)['virtual-size']
