"""A back end as the agent holds it: its driver, how its volumes are exported, and what it says of itself."""
import contextlib
import logging
import threading

from kodiak.storage_block.drivers import base
from kodiak.storage_block.exports.base import Export

LOG = logging.getLogger(__name__)
GIB = float(base.GIB)


class Backend:
    """One back end of this host.

    :param options: its section. :param exporter: an ``exports.base.Exporter``, or None where guests reach the storage by
        themselves.
    """

    def __init__(self, name, options, driver, exporter=None):
        self.name, self.options, self.driver, self.exporter = name, options, driver, exporter
        self.error = 'It is not looked at yet.'
        self._wanted = []
        self._lock = threading.Lock()

    @property
    def protocol(self):
        """What clients of the API know its way of attaching by."""
        return self.exporter.protocol if self.exporter else self.driver.native

    @property
    def online_extend(self):
        """Whether a guest sees that its volume grew."""
        return self.exporter.online_extend if self.exporter else True

    def look(self):
        """Bring it to work if it does not; returns what it says of itself, a ``Backend`` of ``kodiak.storage_block.rpc``."""
        found = {'name': self.name, 'driver': self.options.driver, 'protocol': self.protocol, 'vendor': 'Kodiak',
                 'zone': self.options.zone, 'multiattach': True, 'online_extend': self.online_extend, 'revert': True, 'qos': True,
                 'max_over_subscription_ratio': self.options.max_over_subscription_ratio,
                 'reserved_percentage': self.options.reserved_percentage, 'capabilities': {}}
        try:
            if self.error is not None:
                self.driver.start()
            stats = self.driver.stats()
        except (base.Fault, OSError) as fault:
            message = fault.message if isinstance(fault, base.Fault) else f'It does not answer: {fault.strerror}.'
            if message != self.error:
                LOG.warning('The back end %s cannot be used: %s', self.name, message)
            self.error = message
            return {**found, 'total_gb': 0, 'free_gb': 0, 'thin': True, 'efficient_clone': False, 'error': message}
        if self.error is not None:
            LOG.info('The back end %s works; clones are by %s', self.name, stats.clones)
            self.error = None
        return {**found, 'total_gb': round(stats.total / GIB, 2), 'free_gb': round(stats.free / GIB, 2), 'thin': stats.thin,
                'efficient_clone': stats.clones != 'copy', 'error': None}

    # Exports

    def exported(self, volume_id):
        """Whether somebody may be using the volume now."""
        with self._lock:
            return any(each['volume_id'] == volume_id for each in self._wanted)

    def resize(self, volume_id):
        """The volume grew: let who has it see it."""
        if self.exporter is not None:
            with self._lock:
                self.exporter.resize(self._of(volume_id))

    def reopen(self, volume_id):
        """The volume is another file now."""
        if self.exporter is not None:
            with self._lock:
                self.exporter.reopen(self._of(volume_id))

    def snapshots(self, pairs):
        """Snapshots of several volumes, ``[(snapshot, volume)]``, at one moment where they take no time to make."""
        quick = self.exporter is not None and self.driver.stats().clones != 'copy'
        with self.exporter.still() if quick else contextlib.nullcontext():
            self.driver.snapshots(pairs)

    def _of(self, volume_id):
        return [self._export(each) for each in self._wanted if each['volume_id'] == volume_id]

    def _export(self, each):
        name = base.volume(each['volume_id'])
        size = self.driver.size(name)
        if size is None:
            raise base.Fault('missing', 'The volume is not on its back end.', final=True)
        return Export(each['attachment_id'], each['volume_id'], self.driver.open(name), size, each['access_mode'] == 'ro',
                      each.get('auth_username'), each.get('auth_password'))


def sync(backends, wanted):
    """Export exactly these of back ends that have one exporter, or of one that has none.

    :param wanted: ``{name of a back end: [Export of kodiak.storage_block.rpc]}``.
    :returns: what is to be reported of each: ``[{attachment_id, generation, connection or error}]``.
    """
    said, exports, exporter = [], [], backends[0].exporter
    with contextlib.ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend._lock)
            backend._wanted = wanted[backend.name]
            for each in backend._wanted:
                try:
                    exports.append((each, backend._export(each)))
                except base.Fault as fault:
                    said.append(_said(each, error=fault.message))
        if exporter is None:
            connection = backends[0].driver.connection
            return said + [_said(each, connection=connection(base.volume(each['volume_id']))) for each, _ in exports]
        problems = exporter.sync([export for _, export in exports])
    for each, export in exports:
        problem = problems[export.attachment_id]
        said.append(_said(each, error=problem) if problem else _said(each, connection=exporter.connection(export)))
    return said


def _said(each, **what):
    return {'attachment_id': each['attachment_id'], 'generation': each['generation'], **what}
