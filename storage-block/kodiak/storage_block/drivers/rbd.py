"""Volumes as images of a Ceph pool: guests reach them by themselves, and clones share objects with what they were made of.

Ceph is told by its command ``rbd``; data goes through QEMU's librbd. Clones are of Ceph's second form, whose snapshots may be
removed before them.
"""
import json
import logging
import subprocess

from kodiak.storage_block.drivers import base

LOG = logging.getLogger(__name__)
FEATURES = 'layering,exclusive-lock,object-map,fast-diff,deep-flatten'
TIMEOUT = 3600
MISSING, BUSY, NO_SPACE, NOT_EMPTY = 2, 16, 28, 39


class RbdDriver(base.Driver):
    """The driver ``rbd``. Its section: ``location`` (the pool), ``user``, ``secret_uuid``."""

    native = 'ceph'

    def __init__(self, name, options):
        super().__init__(name, options)
        self.pool = options.location

    def _tool(self, program, *args):
        """Run a program of Ceph's: (exit status, output, complaint)."""
        done = subprocess.run([program, '--id', self.options.user, *args], capture_output=True, text=True, check=False,
                              timeout=TIMEOUT)
        return done.returncode, done.stdout, done.stderr

    def _run(self, *args, allowed=()):
        """Run ``rbd``. Returns its output, or None where it ended with an ``allowed`` status."""
        status, printed, complaint = self._tool('rbd', *args)
        if status in allowed:
            return None
        if status:
            LOG.warning('rbd %s: %s', ' '.join(args), complaint.strip()[-500:])
            if status == NO_SPACE:
                raise base.Fault('no-space', 'The back end has no space left.')
            raise base.Fault('back-end', f'rbd {args[0]} failed on the back end {self.name}.')
        return printed

    def _all(self):
        """``{name of an image or snapshot: (image, size)}``."""
        found = {}
        for row in json.loads(self._run('ls', '-l', '--format', 'json', self.pool)):
            found[row.get('snapshot') or row['image']] = (row['image'], row['size'])
        return found

    def start(self):
        self._all()
        # What could not be removed while it had clones.
        self._run('trash', 'purge', self.pool, allowed=(NOT_EMPTY, BUSY))

    def stats(self):
        status, printed, complaint = self._tool('ceph', 'df', '--format', 'json')
        if status:
            raise base.Fault('back-end', f'Ceph does not answer: {complaint.strip()[:200]}')
        pool = next(row['stats'] for row in json.loads(printed)['pools'] if row['name'] == self.pool)
        return base.Stats(total=pool['bytes_used'] + pool['max_avail'], free=pool['max_avail'], clones='native',
                          provisioned=sum(size for _image, size in self._all().values()))

    def size(self, name):
        if name.startswith('snapshot-'):
            return self._all().get(name, (None, None))[1]
        printed = self._run('info', '--format', 'json', self._full(name), allowed=(MISSING,))
        return None if printed is None else json.loads(printed)['size']

    def create(self, name, size):
        if self.size(name) is None:
            self._run('create', '--size', f'{size}B', '--image-feature', FEATURES, self._full(name))

    def delete(self, name):
        left = self._run('rm', '--no-progress', self._full(name), allowed=(MISSING, NOT_EMPTY, BUSY)) is None
        if left and self.size(name) is not None:
            # Clones live on blocks of it. It is out of sight at once, and goes when the last of them has gone.
            self._run('trash', 'mv', self._full(name))

    def rename(self, old, new):
        if old.startswith('snapshot-') or new.startswith('snapshot-'):
            raise base.Fault('invalid', 'Snapshots of this back end cannot be taken over, or left.', final=True)
        if self._run('mv', self._full(old), self._full(new), allowed=(MISSING,)) is None and self.size(new) is None:
            raise self._missing(old)

    def extend(self, name, size):
        if self._existing(name) < size:
            self._run('resize', '--no-progress', '--size', f'{size}B', self._full(name))

    def snapshot(self, snapshot, volume):
        self._existing(volume)
        if self.size(snapshot) is None:
            self._run('snap', 'create', '--no-progress', f'{self._full(volume)}@{snapshot}')

    def delete_snapshot(self, snapshot, volume):
        self._run('snap', 'rm', '--no-progress', f'{self._full(volume)}@{snapshot}', allowed=(MISSING,))

    def clone(self, source, name, size):
        if self.size(name) is not None:
            return
        self._existing(source)
        half = base.part(name)
        self.delete(half)
        passing = None
        if source.startswith('snapshot-'):
            of = f'{self._full(self._all()[source][0])}@{source}'
        else:
            passing = f'{self._full(source)}@for-{name}'
            self._run('snap', 'rm', '--no-progress', passing, allowed=(MISSING,))
            self._run('snap', 'create', '--no-progress', passing)
            of = passing
        self._run('clone', '--rbd-default-clone-format', '2', of, self._full(half))
        if passing:
            self._run('snap', 'rm', '--no-progress', passing)
        self.extend(half, size)
        self.rename(half, name)

    def revert(self, volume, snapshot):
        size = self._existing(volume)
        self._existing(snapshot)
        self._run('snap', 'rollback', '--no-progress', f'{self._full(volume)}@{snapshot}')
        self.extend(volume, size)

    def open(self, name):
        self._existing(name)
        options = {'driver': 'rbd', 'pool': self.pool, 'image': name, 'user': self.options.user}
        if name.startswith('snapshot-'):
            options.update(image=self._all()[name][0], snapshot=name)
        return base.Node({'driver': 'raw', 'file': options})

    def listing(self):
        return [(name, size) for name, (image, size) in self._all().items() if name == image and not name.endswith(base.PART)]

    def connection(self, name):
        status, printed, complaint = self._tool('ceph', 'mon', 'dump', '--format', 'json')
        if status:
            raise base.Fault('back-end', f'Ceph does not answer: {complaint.strip()[:200]}')
        hosts, ports = [], []
        for monitor in json.loads(printed)['mons']:
            host, _, port = monitor['addr'].partition('/')[0].rpartition(':')
            hosts.append(host.strip('[]'))
            ports.append(port)
        return {'driver_volume_type': 'rbd', 'data': {
            'name': self._full(name), 'hosts': hosts, 'ports': ports, 'auth_enabled': bool(self.options.user), 'discard': True,
            'auth_username': self.options.user, 'secret_type': 'ceph', 'secret_uuid': self.options.secret_uuid or None}}

    def _existing(self, name):
        size = self.size(name)
        if size is None:
            raise self._missing(name)
        return size

    def _full(self, name):
        return f'{self.pool}/{name}'
