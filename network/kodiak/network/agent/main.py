"""``kodiak-network-agent``: brings the networks of its host to what the conductor says."""
import logging
import sys
import threading

from stevedore import driver as drivers

from kodiak.common import config, context, errors, events, log, privileged, reconcile, service
from kodiak.network import rpc
from kodiak.network.agent import conf as agent_conf
from kodiak.network.agent import root, state
from kodiak.network.agent.advertise import Advertiser
from kodiak.network.agent.hands import Hands
from kodiak.network.agent.metadata import Proxy

LOG = logging.getLogger(__name__)

BINARY = 'kodiak-network-agent'
INTERVAL = 15                   # seconds between two questions to the conductor when nothing happens
AUDIT = 120                     # seconds between two looks at the whole host
REPORT_SIZE = 500


class Incomplete(Exception):
    """Something of what the host should have could not be brought about; it is tried again."""


class Agent:
    """Asks, applies, reports. ``look`` and ``bring`` are those of a ``reconcile.Reconciler`` with the host as its one key.

    :param client: an RPC client of the conductor.
    :param driver: a ``drivers.base.Driver``.
    """

    def __init__(self, host, facts, client, driver):
        self.host, self.facts, self.client, self.driver = host, facts, client, driver
        self.wanted = state.Wanted()
        self._lock = threading.Lock()
        self._audit = True
        self._reported, self._unsent = {}, {}
        self._turn = 0

    def look(self, since):
        """Ask what the host should have; ``since`` None asks for an audit too.

        What could not be reported yet is reported here as well, since a conductor that answers again is back.
        """
        try:
            answer = self.client.call('host_state', context.background(), host=self.host, since=self.wanted.generation,
                                      agent=state.dump(self.facts))
        except errors.Error as error:
            if since is not None or self.wanted.generation is None:
                raise
            # What was asked for last still holds, and the host may have drifted from it.
            LOG.warning('The conductor does not answer: %s', error)
            answer = None
        if answer is not None:
            self.send()
        with self._lock:
            changed = self.wanted.apply(answer) if answer is not None else set()
            if since is None or not self.driver.healthy():
                self._audit = True
            if not changed and not self._audit:
                return None
            self._turn += 1
            return reconcile.Wanted(self.wanted.generation, {self.host: self._turn}, full=True)

    def bring(self, key, turn):
        """Bring the host to what it should be, and report."""
        with self._lock:
            audit, self._audit = self._audit, False
            try:
                results = self.driver.apply(self.wanted, audit=audit)
            except Exception:
                self._audit = True
                raise
            self._note(results)
        self.send()
        failed = sorted(error for error in results.values() if error)
        if failed:
            raise Incomplete(f'{len(failed)} of {len(results)} not in order: {failed[0]}')

    def _note(self, results):
        """Keep what the conductor has not heard yet."""
        for (kind, key), error in results.items():
            document = self.wanted.documents(kind)[key]
            said = (document.generation, error)
            if self._reported.get((kind, key)) != said:
                if self._unsent.get((kind, key)) != said:
                    events.emit('reconcile', name='network-agent', key=f'{kind} {key}', outcome='failed' if error else 'done',
                                error=error, resource=getattr(document, 'device_id', None))
                self._unsent[kind, key] = said
        for table in (self._reported, self._unsent):
            for gone in table.keys() - results.keys():
                del table[gone]

    def send(self):
        """Report what is unsaid; what the conductor can't be told now stays for the next time."""
        while self._unsent:
            batch = list(self._unsent.items())[:REPORT_SIZE]
            try:
                self.client.call('report', context.background(), host=self.host, results=[
                    state.dump(state.Result(kind, key, generation, error))
                    for (kind, key), (generation, error) in batch])
            except Exception as error:
                LOG.warning('The conductor can not be told of %d results: %s', len(self._unsent), error)
                return
            for key, said in batch:
                self._reported[key] = said
                if self._unsent.get(key) == said:
                    del self._unsent[key]

    def stop(self):
        """Let go of the driver's sockets."""
        self.driver.stop()

    def start(self):
        """Nothing runs before the reconciler looks."""


class Handlers:
    """What the conductor may say to an agent."""

    def __init__(self, reconciler):
        self.reconciler = reconciler

    def look(self, context, generation):
        """It is worth asking now."""
        if self.reconciler.generation is None or generation > self.reconciler.generation:
            self.reconciler.nudge()


def facts(app):
    """The ``state.AgentFacts`` of this process."""
    conf = app.conf.agent
    return state.AgentFacts(
        binary=BINARY, driver=conf.driver, tunnel_ip=conf.tunnel_ip, bridge_mappings=dict(conf.bridge_mappings), interval=INTERVAL,
        **app.about())


def make_driver(app, driver=None):
    """The driver of the configuration, with what it needs; the privileged daemon is started.

    :param driver: the class of a driver, where it isn't to be found by the name in the configuration.
    """
    privileged.start(root.context, app.conf)
    hands = Hands(app.conf.run_path)
    helpers = (Proxy(app.conf.metadata.url, app.conf.metadata.shared_secret, hands), Advertiser(hands))
    driver = driver or drivers.DriverManager('kodiak.network.drivers', app.conf.agent.driver).driver
    return driver(app.conf, facts(app), hands, helpers)


def build(app, client=None, driver=None):
    """Add the agent's parts to a Runtime.

    :param client: an RPC client of the conductor, where it isn't to be asked over ``app.bus``.
    :param driver: as in :func:`make_driver`.
    :returns: (Agent, Reconciler).
    """
    made = make_driver(app, driver)
    client = client or app.bus.client(rpc.CONDUCTOR, rpc.CONDUCTOR_TOPIC)
    agent = Agent(app.host, made.facts, client, made)
    reconciler = reconcile.Reconciler('network-agent', agent.look, agent.bring, interval=INTERVAL, full_interval=AUDIT)
    app.bus.serve(rpc.AGENT, Handlers(reconciler), rpc.AGENT_TOPIC, server=app.host)
    app.background += [agent, reconciler]
    return agent, reconciler


def main():
    """Entry point of ``kodiak-network-agent``."""
    service.run_worker('network', build, opts=agent_conf.OPTS, binary=BINARY, topic=rpc.AGENT_TOPIC, database=False)


def clean():
    """Entry point of ``kodiak-network-clean``: takes all that the agent made off the host. Stop the agent first."""
    conf = config.load('network', agent_conf.OPTS, args=sys.argv[1:])
    log.setup(conf, 'kodiak-network-clean')
    driver = make_driver(service.make_runtime('network', 'kodiak-network-clean', conf, database=False))
    driver.apply(state.Wanted(), audit=True)
    driver.stop()
