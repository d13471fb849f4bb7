"""The agent between a conductor and fake hosts, over the in-memory bus."""
import threading

import pytest
from agent_shapes import UUID, changed, instance

from kodiak.common import errors, rpc
from kodiak.compute import rpc as tables
from kodiak.compute.agent import main as agents
from kodiak.compute.agent import state
from kodiak.compute.drivers import fake


class Conductor:
    """Says what the test put in, and keeps what it is told."""

    def __init__(self):
        self.instances = {}         # (host, uuid) -> Instance
        self.generation = 1
        self.removable = set()
        self.reports = {}
        self.offers = {}
        self.away = False
        self.said = threading.Condition()

    def put(self, wanted, host='one'):
        self.generation += 1
        wanted.generation = self.generation
        self.instances[(host, wanted.uuid)] = wanted

    def host_state(self, context, hosts):
        if self.away:
            raise errors.Unavailable('away')
        return {host: state.dump(state.HostState(self.generation, not since, [
            wanted for (place, _), wanted in self.instances.items() if place == host and wanted.generation > since]))
            for host, since in hosts.items() if since < self.generation}

    def report(self, context, reports):
        if self.away:
            raise errors.Unavailable('away')
        with self.said:
            for report in reports:
                self.reports[(report['host'], report['uuid'])] = state.Report.load(report)
            self.said.notify_all()
        return {report['uuid']: 'ok' for report in reports}

    def wait(self, condition):
        with self.said:
            assert self.said.wait_for(condition, 20)

    def resources(self, context, resources):
        self.offers.update((item['host'], item) for item in resources)
        return {}

    def unwanted(self, context, host, uuids):
        return [uuid for uuid in uuids if uuid in self.removable]

    def console_token(self, context, token):
        return None

    def alive(self, context, host, binary, version, started_at):
        return {}


@pytest.fixture
def bus():
    bus = rpc.Bus.in_memory()
    yield bus
    bus.close()


@pytest.fixture
def conductor(bus):
    conductor = Conductor()
    bus.serve(tables.CONDUCTOR, conductor, tables.CONDUCTOR_TOPIC)
    return conductor


def make(conf, bus, images, hosts=('one',)):
    about = {'version': '7.1', 'started_at': '2026-01-02T03:04:05'}
    return agents.Agent(conf, bus, [fake.FakeDriver(conf, host, images) for host in hosts], about)


@pytest.fixture
def agent(conf, bus, conductor, images):
    agent = make(conf, bus, images)
    agent.start()
    yield agent
    agent.stop()


def test_brings_what_the_conductor_says_and_reports_it(agent, conductor, bus):
    bus.serve(tables.AGENT, agents.Handlers(agent), tables.AGENT_TOPIC, 'one')
    conductor.put(instance())
    client = bus.client(tables.AGENT, tables.AGENT_TOPIC)
    client.cast('look', server='one', hosts=['one'])
    conductor.wait(lambda: ('one', UUID) in conductor.reports)
    told = conductor.reports[('one', UUID)]
    assert (told.power_state, told.settled, told.generation) == ('running', True, conductor.generation)
    assert client.call('console_output', server='one', host='one', uuid=UUID, length=10) == 'LAST LINE\n'
    assert client.call('console_address', server='one', host='one', uuid=UUID, kind='vnc')['port'] == 6901
    assert client.call('diagnostics', server='one', host='one', uuid=UUID)['state'] == 'running'
    with pytest.raises(errors.NotFound):
        client.call('diagnostics', server='one', host='two', uuid=UUID)


def test_offers_its_resources(agent, conductor):
    for _ in range(200):
        if conductor.offers:
            break
        threading.Event().wait(0.05)
    offered = state.Resources.load(conductor.offers['one'])
    assert (offered.vcpus, offered.version, offered.started_at) == (1000, '7.1', '2026-01-02T03:04:05')


def test_keeps_reports_while_the_conductor_is_away(agent, conductor):
    conductor.put(instance())
    agent.reconciler.nudge()
    conductor.wait(lambda: conductor.reports)
    conductor.reports.clear()
    conductor.away = True
    agent.reporter.say(state.Report(UUID, 'one', 9, 'running'))
    agent.reporter.say(state.Report(UUID, 'one', 10, 'paused'))
    conductor.away = False
    conductor.wait(lambda: conductor.reports)
    assert conductor.reports[('one', UUID)].generation == 10


def test_strays_go_only_when_the_conductor_confirms(conf, bus, conductor, images):
    conductor.put(instance())
    first = make(conf, bus, images)
    first.start()
    conductor.wait(lambda: conductor.reports)
    first.stop()
    conductor.instances.clear()
    for removable, left in ((set(), {UUID}), ({UUID}, set())):
        conductor.removable = removable
        agent = make(conf, bus, images)
        for driver in agent.drivers.values():
            driver.start(None)
        agent.reconciler.run_once()
        assert agent.drivers['one'].records() == left


def test_an_event_of_an_unknown_guest_touches_nothing(conf, bus, conductor, images):
    agent = make(conf, bus, images)
    driver = agent.drivers['one']
    driver.start(None)
    agent.workers['one'].bring(UUID, instance())
    conductor.generation = 0
    agent.reconciler.again(('one', UUID))
    agent.reconciler.run_once()
    assert driver.look(UUID).power == 'running'


def test_many_hosts_in_one_process(conf, bus, conductor, images):
    hosts = [f'one-{number:04d}' for number in range(1, 21)]
    conf.set_override('driver', 'fake', 'agent')
    agent = make(conf, bus, images, hosts)
    agent.start()
    try:
        for number, host in enumerate(hosts):
            wanted = changed(instance())
            wanted.uuid = f'{number:08d}-2222-3333-4444-555555555555'
            conductor.put(wanted, host)
        agent.reconciler.nudge()
        conductor.wait(lambda: len(conductor.reports) == len(hosts))
        assert {report.power_state for report in conductor.reports.values()} == {'running'}
    finally:
        agent.stop()


def test_two_agents_do_not_share_a_folder(agent, conf, bus, images):
    with pytest.raises(RuntimeError):
        make(conf, bus, images).start()
