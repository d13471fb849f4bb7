"""qemu-img within limits: on data of strangers too, with secrets that no list of processes shows.

A crafted image can name other files of the host, or make the tool eat memory and time. So what was sent is looked at by
oslo.utils' inspector, which reads headers only; a format is always said and never guessed by QEMU; the tool has
bounded memory. What it opens is given as a :class:`~kodiak.storage_block.drivers.base.Node`.
"""
import json
import logging
import os
import subprocess

from kodiak.common import diskimage
from kodiak.storage_block import ticket
from kodiak.storage_block.drivers import base

LOG = logging.getLogger(__name__)
MEMORY = 2 << 30        # bytes of address space
KEY = 'key0'


class Secret:
    """A passphrase (bytes, of text: QEMU takes no other) that a tool reads from a file which has no name. A context manager.

    :param id: what nodes call it (``key-secret``).
    """

    def __init__(self, passphrase, id=KEY):
        self.id = id
        self.fd = os.memfd_create('secret', 0)
        os.write(self.fd, passphrase)

    def options(self):
        """The arguments that tell the tool."""
        return ['--object', f'secret,id={self.id},file=/dev/fd/{self.fd}']

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


def run(*args, secret=None, secrets=(), tool='qemu-img'):
    """Run ``qemu-img`` and return what it printed; it is ended where the work that it is for is cancelled.

    :param secret: a :class:`Secret` that the tool reads, or several as ``secrets``.
    :raises base.Fault: ``qemu-img``, ``no-space``.
    """
    command = ['prlimit', f'--as={MEMORY}', '--', tool, *map(str, args)]
    given = [each.fd for each in ([secret] if secret else []) + list(secrets)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=given, env={
            'PATH': os.environ.get('PATH', '/usr/bin:/bin'), 'LC_ALL': 'C'}) as process:
        try:
            while True:
                try:
                    printed, complaint = process.communicate(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    ticket.check()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        complaint = complaint.decode(errors='replace').strip()
        LOG.warning('%s %s failed (%d): %s', tool, args[0], process.returncode, complaint[-1000:])
        if 'No space left' in complaint:
            raise base.Fault('no-space', 'The back end has no space left.')
        raise base.Fault('qemu-img', 'The data could not be read or written on the back end.')
    return printed


def json_name(node, share=False):
    """A node as a file name that qemu-img takes."""
    options = dict(node.options, **({'force-share': True} if share else {}))
    return 'json:' + json.dumps(options)


def info(node, secret=None, share=True):
    """``qemu-img info`` as a dictionary."""
    args = ['info', *(secret.options() if secret else []), '--output=json', json_name(node, share)]
    return json.loads(run(*args, secret=secret))


def convert(source, target, *secrets, share=False, zeros=True, objects=()):
    """Copy all of ``source`` into ``target``, which is there and at least as large.

    :param secrets: each :class:`Secret` that the nodes mean.
    :param share: ``source`` may be in use.
    :param zeros: ``target`` reads as zeros, so holes need not be written.
    :param objects: more arguments for what the nodes need (``--object ...``).
    """
    run('convert', '-n', *(['--target-is-zero'] if zeros else []), *objects, *_given(secrets), *(['-U'] if share else []),
        '--image-opts', '--target-image-opts', _opts(source), _opts(target), secrets=secrets)


def convert_to_file(source, format, path, *secrets, share=False):
    """A new file of another format with the content of ``source``."""
    run('convert', '-O', format, *_given(secrets), *(['-U'] if share else []), '--image-opts', _opts(source), path, secrets=secrets)


def _given(secrets):
    return [part for secret in secrets for part in secret.options()]


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


def luks(node, id=KEY):
    """The node of what is inside the LUKS container ``node``; it needs the :class:`Secret` of that id."""
    return base.Node({'driver': 'luks', 'key-secret': id, 'file': node.options['file'] if node.path else node.options})


def inspect(path, disk_format):
    """What a downloaded file really is: the QEMU name of its format, and its virtual size in bytes.

    :raises base.Fault: ``image`` if it is not what the image service said, or is not safe to use.
    """
    try:
        # (the data of an encrypted volume is uploaded as it is, a LUKS container)
        wanted = diskimage.judge(path, disk_format, (*diskimage.RAW, 'luks'))
    except diskimage.Refused as refused:
        LOG.warning('An image is refused: %s', refused)
        raise base.Fault('image', str(refused), final=True)
    if wanted == 'raw':
        return wanted, os.path.getsize(path)
    return wanted, info(base.Node.of_path(path, wanted), share=False)['virtual-size']
