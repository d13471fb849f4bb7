"""``kodiak-storage-block-agent``: brings the back ends of its host to what the conductor says.

It has no database and may be killed at any moment. Guests go on using their volumes meanwhile: what exports them are
processes of their own.
"""
import fcntl
import logging
import os
import threading

from stevedore import driver as loader

from kodiak.common import context, errors, privileged, reconcile, service
from kodiak.storage_block import log_levels, rpc
from kodiak.storage_block.agent import conf as options
from kodiak.storage_block.agent import tasks
from kodiak.storage_block.agent.backend import Backend, sync
from kodiak.storage_block.agent.images import Images
from kodiak.storage_block.agent.works import Works
from kodiak.storage_block.drivers import base

LOG = logging.getLogger(__name__)
BINARY = 'kodiak-storage-block-agent'
INTERVAL = 10           # seconds between two questions to the conductor when nothing happens
BEAT = 30               # seconds between two signs of life
HOUR = 3600
STATE = 'state'


class Incomplete(Exception):
    """Something could not be exported; it is tried again."""


class Agent:
    """Asks, exports, works, reports.

    :param client: an RPC client of the conductor. :param backends: a list of :class:`Backend`.
    :param about: what ``register`` says of the agent.
    """

    def __init__(self, host, client, backends, folder, threads=4, about=None):
        self.host, self.client, self.about, self.folder = host, client, about or {}, folder
        self.backends = {backend.name: backend for backend in backends}
        self.tasks = None
        self.works = Works(self._perform, self._forget, self._report_soon, self._progress, threads)
        self.reconciler = reconcile.Reconciler('storage-block-agent', self.look, self.bring, interval=INTERVAL, max_backoff=5)
        self._exported = {}             # back end -> what it was last brought to export; what is not here is looked at anew
        self._reported = {}             # attachment -> what was last said of it
        self._unsaid = {}
        self._stopping = threading.Event()
        self._more = threading.Event()
        self._threads = []
        self._state_lock = None
        self._reporting = threading.Lock()

    # Life

    def start(self):
        """Begin. :raises RuntimeError: another agent already works with this state folder."""
        os.makedirs(self.folder, mode=0o750, exist_ok=True)
        self._state_lock = open(os.path.join(self.folder, 'agent.lock'), 'w')     # noqa: SIM115
        try:
            fcntl.flock(self._state_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f'Another agent works with {self.folder}.')
        for target in (self._beat, self._report):
            thread = threading.Thread(target=target, name=target.__name__.strip('_'), daemon=True)
            thread.start()
            self._threads.append(thread)
        for exporter in {id(backend.exporter): backend.exporter for backend in self.backends.values() if backend.exporter}.values():
            exporter.start(self.lost)

    def stop(self):
        """Cut off what runs, report what is done, and end. What is exported stays exported."""
        self._stopping.set()
        self._more.set()
        self.reconciler.stop()
        self.works.stop()
        for backend in self.backends.values():
            if backend.exporter:
                backend.exporter.stop()
        self.report()
        if self._state_lock is not None:
            self._state_lock.close()

    def lost(self):
        """What was exported may be gone."""
        self._exported = {}
        self.reconciler.nudge(STATE)

    def _beat(self):
        """Tell the conductor what there is, then and now; the first time before anything is asked."""
        started, pruned, pause = False, 0, 0
        while not self._stopping.wait(pause):
            try:
                self.register()
                pause = BEAT
                if not started:
                    self.reconciler.start()
                    started = True
            except Exception as error:
                LOG.warning('The conductor could not be told of the back ends: %s', error)
                pause = 2
                continue
            if pruned <= 0:
                pruned = HOUR
                try:
                    self.tasks.images.prune()
                except OSError as error:
                    LOG.warning('Images could not be looked after: %s', error)
            pruned -= BEAT

    def register(self):
        """Look at all back ends, and say what they are."""
        found = [backend.look() for backend in self.backends.values()]
        self.client.call('register', context.background(), host=self.host, backends=found, agent=self.about)

    # What should be

    def look(self, since):
        """What the conductor wants of this host, as one item."""
        answer = self.client.call('host_state', context.background(), host=self.host, since=since)
        if 'work' not in answer:
            return None
        if since is None:
            self._exported = {}
        return reconcile.Wanted(answer['generation'], {STATE: answer}, full=True)

    def bring(self, key, state):
        """Make the exports be those of ``state``, then begin its works. What is there stays until a state was heard."""
        if state is None:
            return
        problems = []
        for group in self._groups():
            wanted = {backend.name: [export for export in state['exports'] if export['backend'] == backend.name]
                      for backend in group}
            if all(self._exported.get(name) == exports for name, exports in wanted.items()):
                continue
            try:
                said = sync(group, wanted)
            except base.Fault as fault:
                LOG.warning('The volumes of %s cannot be exported now: %s', ', '.join(wanted), fault.message)
                problems.append(fault.message)
                continue
            wrong = [each['error'] for each in said if each.get('error')]
            if not wrong:
                self._exported.update(wanted)
            problems += wrong
            self._note(said)
        for export in state['exports']:
            if export['backend'] not in self.backends:
                self._note([{'attachment_id': export['attachment_id'], 'generation': export['generation'],
                             'error': 'The host of the volume has its back end no more.'}])
        with self._reporting:
            listed = {export['attachment_id'] for export in state['exports']}
            for gone in self._reported.keys() - listed:
                del self._reported[gone]
        self.works.update(state['work'])
        self._more.set()
        if problems:
            raise Incomplete(problems[0])

    def _groups(self):
        """The back ends, those together that one exporter serves: it is told of all exports at once."""
        found = {}
        for backend in self.backends.values():
            found.setdefault(id(backend.exporter or backend), []).append(backend)
        return list(found.values())

    def _note(self, said):
        with self._reporting:
            for each in said:
                if self._reported.get(each['attachment_id']) != each:
                    self._unsaid[each['attachment_id']] = each

    def _perform(self, work):
        return self.tasks.perform(work)

    def _forget(self, number):
        self.tasks.forget(number)

    # What is

    def _report_soon(self):
        self._more.set()

    def _report(self):
        while not self._stopping.is_set():
            self._more.wait(INTERVAL)
            self._more.clear()
            pause = 0.5
            while not self._stopping.is_set() and not self.report():
                self._stopping.wait(pause)
                pause = min(pause * 2, 10)

    def report(self):
        """Say what the conductor has not heard. Returns False where it could not be told."""
        with self._reporting:
            exports, results = list(self._unsaid.values()), self.works.outcomes()
        if not exports and not results:
            return True
        try:
            self.client.call('report', context.background(), host=self.host, results=results, exports=exports)
        except errors.Error as error:
            LOG.warning('The conductor could not be told of %d results: %s', len(exports) + len(results), error)
            return False
        self.works.told(results)
        with self._reporting:
            for each in exports:
                self._reported[each['attachment_id']] = each
                if self._unsaid.get(each['attachment_id']) == each:
                    del self._unsaid[each['attachment_id']]
        return True

    def _progress(self, number, percent):
        try:
            return self.client.call('progress', context.background(), host=self.host, number=number, percent=percent)
        except errors.Error:
            return None         # not heard: the work goes on


class Handlers(log_levels.Handlers):
    """What the conductor and the API may say to an agent."""

    def __init__(self, agent):
        self.agent = agent

    def look(self, context, generation):
        """It is worth asking now."""
        known = self.agent.reconciler.generation
        if known is None or generation > known:
            self.agent.reconciler.nudge()

    def list_manageable(self, context, backend, kind):
        """What could be managed."""
        found = self.agent.backends.get(backend)
        if found is None or found.error:
            raise errors.Unavailable(f'The back end {backend} cannot be used: {found.error if found else "it is gone"}')
        prefix = tasks.LEFT + 'snapshot-'
        return [{'reference': {'source-name': name}, 'size': -(-size // base.GIB)} for name, size in found.driver.listing()
                if not base.NAME.match(name) and name.startswith(prefix) == (kind == 'snapshots')]


def make_exporters(conf):
    """``{name: Exporter}`` of this host."""
    from kodiak.storage_block.exports.nbd import NbdExporter
    from kodiak.storage_block.exports.tgt import TgtExporter
    ip = conf.agent.host_ip
    portal = f'[{ip}]:{conf.agent.iscsi_port}' if ':' in ip else f'{ip}:{conf.agent.iscsi_port}'
    return {'iscsi': TgtExporter(os.path.join(conf.run_path, 'storage-block-tgtd.0'), portal),
            'nbd': NbdExporter(os.path.join(conf.run_path, 'storage-block-nbd.sock'), ip, conf.agent.nbd_port)}


def make_backends(conf):
    """The back ends that the configuration names."""
    exporters, backends = make_exporters(conf), []
    for name in conf.agent.backends:
        section = options.backend(conf, name)
        if not section.path:
            conf.set_default('path', os.path.join(conf.state_path, 'storage-block', name), group=name)
        plugin = loader.DriverManager('kodiak.storage_block.drivers', section.driver).driver
        driver = plugin(name, section)
        if driver.needs_root and not any(backend.driver.needs_root for backend in backends):
            from kodiak.storage_block.drivers import root
            privileged.start(root.context, conf)
        backends.append(Backend(name, section, driver, None if driver.native else exporters[section.export]))
    return backends


def make_store(conf, clients):
    """Where backups are kept, or None."""
    if not conf.agent.backup_driver:
        return None
    plugin = loader.DriverManager('kodiak.storage_block.backups', conf.agent.backup_driver).driver
    return plugin(clients, conf.agent.backup_location or os.path.join(conf.state_path, 'storage-block', 'backups'))


def build(app, client=None):
    """Make the agent out of a Runtime (``service.run_worker``)."""
    conf = app.conf
    folder = os.path.join(conf.state_path, 'storage-block')
    client = client or app.bus.client(rpc.CONDUCTOR, rpc.CONDUCTOR_TOPIC)
    store = make_store(conf, app.clients)
    about = {**app.about(), 'backup': store.name if store else None}
    agent = Agent(app.host, client, make_backends(conf), folder, conf.agent.workers, about)
    # Beside the volumes, so that a volume can share an image's blocks.
    beside = next((os.path.dirname(backend.options.path) for backend in agent.backends.values()
                   if backend.options.driver in ('file', 'nfs')), folder)
    images = Images(app.clients.image, os.path.join(beside, 'images'), conf.agent.image_cache_hours)
    agent.tasks = tasks.Tasks(
        agent.backends, images,
        lambda key_id: tasks.decoded(client.call('key', context.background(), host=app.host, key_id=key_id)),
        store, os.path.join(beside, 'passing'))
    app.background.append(agent)
    app.bus.serve(rpc.AGENT, Handlers(agent), rpc.AGENT_TOPIC, server=app.host)
    return agent


def main():
    """Entry point of ``kodiak-storage-block-agent``."""
    os.umask(0o027)
    service.run_worker('storage-block', build, opts=options.OPTS, binary=BINARY, topic=rpc.AGENT_TOPIC, database=False)
