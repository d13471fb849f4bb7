"""The agent process: asks its conductor what its hosts should be, has it brought about, and reports.

One process serves one host; with the fake driver it may serve many. It has no database and may be killed at any
moment: what must not be forgotten is kept by the driver next to the disks.
"""
import fcntl
import logging
import os
import threading

from kodiak.common import context, errors, reconcile
from kodiak.compute import rpc
from kodiak.compute.agent import state
from kodiak.compute.agent.worker import Worker
from kodiak.compute.drivers import base

LOG = logging.getLogger(__name__)
MINUTE = 60
KEEP = 'keep'       # a guest that is neither wanted here nor confirmed to be unwanted: not touched


class Agent:
    """Runs in the background of the agent's :class:`~kodiak.common.runtime.Runtime`.

    :param drivers: one :class:`base.Driver` a host.
    :param about: what the process says of itself: ``{'version': ..., 'started_at': ...}``.
    """

    def __init__(self, conf, bus, drivers, about=None):
        self.conf, self.about = conf, about or {}
        self.drivers = {driver.host: driver for driver in drivers}
        self.conductor = bus.client(rpc.CONDUCTOR, rpc.CONDUCTOR_TOPIC)
        self.reporter = Reporter(self.conductor)
        self.workers = {host: Worker(driver, self.reporter.say) for host, driver in self.drivers.items()}
        self.reconciler = reconcile.Reconciler('compute_agent', self._look, self._bring, threads=conf.agent.workers)
        self._stopping = threading.Event()
        self._threads = []
        self._lock = None

    # Life

    def start(self):
        """Begin. :raises RuntimeError: another agent already works with this state folder."""
        folder = os.path.join(self.conf.state_path, 'compute')
        if not os.path.isdir(folder):
            # QEMU's user passes through to the folders of disks and images, and sees nothing else.
            os.makedirs(folder)
            os.chmod(folder, 0o711)     # noqa: S103
        self._lock = open(os.path.join(folder, 'agent.lock'), 'w')   # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f'Another agent works with {folder}.')
        for host, driver in self.drivers.items():
            driver.start(lambda uuid, host=host: self.reconciler.again((host, uuid)))
        self.reporter.start()
        self.reconciler.start()
        thread = threading.Thread(target=self._every_minute, name='every-minute', daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self):
        """Finish the step that runs for each instance, send what is to be reported, and end."""
        self._stopping.set()
        for driver in self.drivers.values():
            driver.interrupt()
        self.reconciler.stop()
        self.reporter.stop()
        for driver in self.drivers.values():
            driver.close()
        if self._lock is not None:
            self._lock.close()

    def _every_minute(self):
        pause = 0
        while not self._stopping.wait(pause):
            pause = MINUTE
            try:
                self._send_resources()
            except Exception as error:
                pause = 2
                LOG.warning('The resources of this host could not be reported: %s', error)
                continue
            for driver in self.drivers.values():
                try:
                    driver.tidy()
                except Exception:
                    LOG.exception('Housekeeping failed')

    def _send_resources(self):
        resources = []
        for host, driver in self.drivers.items():
            self._ready(driver)
            resources.append(state.dump(state.Resources(
                host=host, agent=self.conf.host, hypervisor_hostname=host, host_ip=self.conf.agent.host_ip,
                connector={'initiator': base.initiator(host)}, **self.about, **driver.resources())))
        self.conductor.call('resources', context.background(), resources=resources)

    @staticmethod
    def _ready(driver):
        problem = driver.ready()
        if problem:
            raise errors.Unavailable(problem)

    # What should be

    def _look(self, since):
        for driver in self.drivers.values():
            self._ready(driver)
        asked = {host: (since or {}).get(host, 0) for host in self.drivers}
        answers = self.conductor.call('host_state', context.background(), hosts=asked)
        if not answers:
            return None
        items, generation = {}, dict(asked)
        for host, answer in answers.items():
            host_state = state.HostState.load(answer)
            generation[host] = host_state.generation
            listed = {(host, instance.uuid): instance for instance in host_state.instances}
            items.update(listed)
            if host_state.full:
                items.update(self._strays(host, {uuid for _host, uuid in listed}))
        return reconcile.Wanted(generation, items, full=since is None)

    def _strays(self, host, listed):
        """What is on the host and not in its full state: None for what the conductor confirms to be unwanted."""
        strays = self.drivers[host].records() - listed
        if not strays:
            return {}
        unwanted = set(self.conductor.call('unwanted', context.background(), host=host, uuids=sorted(strays)))
        for uuid in strays & unwanted:
            LOG.warning('%s is on %s and does not belong there: it is removed', uuid, host)
        for uuid in strays - unwanted:
            LOG.warning('%s is on %s, and its conductor does not know it there: it is left alone', uuid, host)
        return {(host, uuid): None if uuid in unwanted else KEEP for uuid in strays}

    def _bring(self, key, wanted):
        host, uuid = key
        if wanted == KEEP:
            return
        try:
            self.workers[host].bring(uuid, wanted)
        except base.Fault as fault:
            if not fault.final:
                raise
            LOG.warning('%s cannot be brought about: %s', uuid, fault)


class Handlers:
    """Answers the AGENT table."""

    def __init__(self, agent):
        self.agent = agent

    def _driver(self, host):
        driver = self.agent.drivers.get(host)
        if driver is None:
            raise errors.NotFound(f'This agent does not answer for the host {host}.')
        return driver

    def console_output(self, context, host, uuid, length):
        return self._driver(host).console_output(uuid, length)

    def console_address(self, context, host, uuid, kind):
        try:
            found = self._driver(host).console_address(uuid, kind)
        except base.Fault as fault:
            raise errors.Conflict(fault.message)
        return found and state.dump(found)

    def diagnostics(self, context, host, uuid):
        try:
            return self._driver(host).diagnostics(uuid)
        except base.Fault as fault:
            raise errors.Conflict(fault.message)

    def look(self, context, hosts):
        self.agent.reconciler.nudge()

    def fetch_images(self, context, host, images):
        driver, wanted = self._driver(host), [state.Image.load(image) for image in images]
        # It may take long, and nobody waits for it.
        threading.Thread(target=self._fetch, args=(driver, wanted), name='fetch-images', daemon=True).start()

    def _fetch(self, driver, images):
        for image in images:
            try:
                driver.fetch(image)
            except base.Fault as fault:
                LOG.warning('Image %s could not be fetched ahead for %s: %s', image.id, driver.host, fault.message)
            except Exception:
                LOG.exception('Image %s could not be fetched ahead for %s', image.id, driver.host)


class Reporter:
    """Sends reports in batches; keeps the newest of each instance until the conductor has taken it."""

    def __init__(self, conductor):
        self.conductor = conductor
        self._waiting = {}
        self._more = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='reporter', daemon=True)

    def start(self):
        """Begin to send."""
        self._thread.start()

    def say(self, report):
        """Send a ``state.Report`` soon."""
        with self._more:
            self._waiting[(report.host, report.uuid)] = report
            self._more.notify()

    def stop(self, timeout=5):
        """Send what waits, if the conductor answers, and end."""
        with self._more:
            self._stopping = True
            self._more.notify()
        self._thread.join(timeout)

    def _run(self):
        pause = 0.5
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting or self._stopping)
                batch, self._waiting = self._waiting, {}
                stopping = self._stopping
            if not batch:
                return
            try:
                self.conductor.call('report', context.background(), reports=[state.dump(item) for item in batch.values()])
                pause = 0.5
            except Exception as error:
                LOG.warning('%d reports could not be delivered: %s', len(batch), error)
                if stopping:
                    return
                with self._more:
                    # What was said meanwhile is newer.
                    self._waiting = {**batch, **self._waiting}
                    self._more.wait_for(lambda: self._stopping, pause)
                pause = min(pause * 2, 10)


def make_drivers(conf, images, keys=None):
    """The drivers that the configuration asks for."""
    from stevedore import driver as loader
    plugin = loader.DriverManager('kodiak.compute.drivers', conf.agent.driver).driver
    hosts = [conf.host]
    if conf.agent.driver == 'fake' and conf.agent.fake_hosts > 1:
        hosts = [f'{conf.host}-{number:04d}' for number in range(1, conf.agent.fake_hosts + 1)]
    return [plugin(conf, host, images, keys) for host in hosts]


def build(app):
    """Make the agent out of a Runtime (``service.run_worker``)."""
    from kodiak.compute.agent.images import Images
    from kodiak.compute.agent.keys import Keys
    agent = Agent(app.conf, app.bus, make_drivers(app.conf, Images(app.clients.image), Keys(app.clients)), app.about())
    app.background.append(agent)
    app.bus.serve(rpc.AGENT, Handlers(agent), rpc.AGENT_TOPIC, app.conf.host)


def main():
    """``kodiak-compute-agent``."""
    from kodiak.common import service
    from kodiak.compute.agent.conf import OPTS
    os.umask(0o027)
    service.run_worker('compute', build, opts=OPTS, binary='kodiak-compute-agent', topic=rpc.AGENT_TOPIC, database=False)
