"""What drivers share that keep DHCP, routers and the metadata proxy in network namespaces of the host.

A driver of this kind says how a host's own namespace looks, how a namespace is plugged into a network and how ports are
filtered (:class:`Shape`). Planning is apart from doing: :func:`plan` and :func:`steps` are functions of data.
"""
import dataclasses
import ipaddress
import logging
import os
import pwd

from kodiak.network.agent import dhcp, layout, names, nft, routers
from kodiak.network.agent.leases import Folder
from kodiak.network.drivers import base

LOG = logging.getLogger(__name__)

REPORTED = ('networks', 'ports', 'routers', 'floating_ips')


@dataclasses.dataclass
class Plan:
    """A host as it should be.

    ``spaces`` and ``tables`` as in ``hands.Observed``; ``services``: {network id: dhcp.Service}; ``listeners``:
    {namespace: (kind, id)} that answer for metadata; ``cuts``: {namespace: [(zone, address)]}, known connections to end;
    ``problems``: {(kind, id): sentence}, what can't be done; ``filtered``: ids of the ports that need the host's tables.
    """

    spaces: dict = dataclasses.field(default_factory=dict)
    tables: dict = dataclasses.field(default_factory=dict)
    services: dict = dataclasses.field(default_factory=dict)
    listeners: dict = dataclasses.field(default_factory=dict)
    cuts: dict = dataclasses.field(default_factory=dict)
    problems: dict = dataclasses.field(default_factory=dict)
    filtered: set = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a plan depends on besides the wanted state."""

    facts: object                   # state.AgentFacts
    tap_owner: int | None           # uid
    dhcp_folder: str
    dhcp_user: str
    dns_servers: tuple = ()


def plan(shape, wanted, settings, observed):
    """The :class:`Plan` of a host.

    :param shape: the driver's module of planning: ``host``, ``plug``, ``filters`` and ``cuts``.
    """
    made = Plan()
    host, bridges, problems = shape.host(wanted, settings, observed)
    made.spaces[names.HOST] = host
    for key, sentence in problems.items():
        made.problems['networks', key] = sentence
    for key, port in wanted.ports.items():
        if port.network_id not in wanted.networks:
            made.problems['ports', key] = f'network {port.network_id} is not known on this host'
        elif port.network_id in problems:
            made.problems['ports', key] = problems[port.network_id]
    _plan_dhcp(made, shape, wanted, settings, bridges)
    addresses = routers.floating(wanted)
    for key, router in wanted.routers.items():
        name = names.router_namespace(key)
        try:
            space, table, sentence = routers.plan(wanted, router, addresses.get(key, []), bridges, host, shape.plug)
        except (ValueError, KeyError) as error:
            _malformed(made, ('routers', key), error)
            continue
        made.spaces[name], made.tables[name] = space, {routers.TABLE: table}
        made.cuts[name] = routers.cuts(observed.tables.get(name, {}).get(routers.TABLE), table)
        if sentence:
            made.problems['routers', key] = sentence
        if router.legs and router.admin_state_up:
            made.listeners[name] = ('routers', key)
    for key, one in wanted.floating_ips.items():
        if one.router_id not in wanted.routers:
            made.problems['floating_ips', key] = f'router {one.router_id} is not on this host'
    tables, made.filtered, sentences = shape.filters(wanted, bridges, observed.tables[names.HOST])
    made.tables[names.HOST] = tables
    made.cuts[names.HOST] = shape.cuts(observed.tables[names.HOST], tables)
    for key, sentence in sentences.items():
        made.problems.setdefault(('ports', key), sentence)
    return made


def _malformed(made, owner, error):
    """A document that makes no sense is a fault of its own and of nothing else; what it has on the host is taken away."""
    LOG.error('The document of %s %s makes no sense: %r', *owner, error)
    host = made.spaces[names.HOST]
    for name in [name for name, known in host.owners.items() if known == owner and host.links[name].kind == 'veth']:
        del host.links[name], host.owners[name]
    made.problems[owner] = f'its document makes no sense: {error}'


def _plan_dhcp(made, shape, wanted, settings, bridges):
    members = {}
    for member in wanted.members.values():
        members.setdefault(member.network_id, []).append(member)
    for key, network in wanted.networks.items():
        if key not in bridges or not dhcp.serves(network):
            continue
        mine = members.get(key, [])
        name = names.dhcp_namespace(key)
        try:
            service = dhcp.render(network, mine, os.path.join(settings.dhcp_folder, key), settings.dhcp_user,
                                  settings.dns_servers)
            made.spaces[name] = dhcp.plan(network, mine, bridges[key], made.spaces[names.HOST], shape.plug)
        except (ValueError, KeyError) as error:
            _malformed(made, ('networks', key), error)
            continue
        made.services[key] = service
        if dhcp.isolated_subnets(network, mine):
            made.listeners[name] = ('networks', key)


@dataclasses.dataclass
class Steps:
    """What is to be done, in order; each a list of ``layout.Action``.

    ``first`` takes away, makes namespaces and sets filters; ``then`` makes links and what stands on them, and may only follow
    for a filtered port if the filters are in force; ``last`` ends known connections and announces new addresses.
    """

    first: list
    then: list
    last: list


def steps(made, observed):
    """The difference between a plan and a host, DHCP processes apart."""
    removals, created, rest = layout.diff(made.spaces, observed.spaces)
    first = [*removals, *created]
    for space, tables in made.tables.items():
        have = observed.tables.get(space, {})
        script = ''.join(f'delete table {title}\n' for title in have if title not in tables)
        script += ''.join(nft.diff(table, have.get(title)) for title, table in tables.items())
        if script:
            first.append(layout.Action(('nft', space, script), made.spaces[space].owner))
    last = [layout.Action(('conntrack.cut', space, cuts)) for space, cuts in made.cuts.items()
            if cuts and space in observed.spaces]
    arrived = {}
    for action in rest:
        if action.op[0] == 'address.add':
            _, space, leg, cidr = action.op
            address = ipaddress.ip_interface(cidr).ip
            if address.version == 4 and leg.startswith(('qg-', 'qr-')) and made.spaces[space].links[leg].up:
                arrived.setdefault((space, leg), []).append(str(address))
    last += [layout.Action(('announce', space, leg, addresses)) for (space, leg), addresses in arrived.items()]
    return Steps(first, rest, last)


class NamespaceDriver(base.Driver):
    """A driver of this kind; subclasses set ``shape``.

    :param hands: a ``hands.Hands``.
    :param helpers: the metadata proxy and the advertiser, which hold sockets in namespaces: ``leave(plan, wanted, fresh)``
        is called before anything is removed or made anew, ``join(plan, wanted, errors)`` when everything is there.
    """

    shape = None

    def __init__(self, conf, facts, hands, helpers=()):
        super().__init__(conf, facts)
        self.hands, self.helpers = hands, helpers
        self.observed = None
        folder = os.path.join(conf.state_path, 'network', 'dhcp')
        self.settings = Settings(facts, _uid(conf.agent.tap_owner), folder, conf.agent.dhcp_user,
                                 tuple(conf.agent.dns_servers))

    def stop(self):
        for helper in self.helpers:
            helper.stop()

    def healthy(self):
        if self.observed is None:
            return True
        return all(os.path.exists(f'/proc/{pid}') for running in self.observed.services.values() for pid, _, _ in running)

    def apply(self, wanted, audit=False):
        if audit or self.observed is None:
            self.observed = self.hands.look()
        observed, self.observed = self.observed, None
        made = plan(self.shape, wanted, self.settings, observed)
        todo = steps(made, observed)
        errors = dict(made.problems)
        clean = self._run(self._stops(made, observed), errors)
        fresh = {action.op[1] for action in todo.first if action.op[0] == 'namespace.add'} \
            | {(action.op[1], action.op[2]) for action in todo.then if action.op[0] == 'link.set'}
        for helper in self.helpers:
            helper.leave(made, wanted, fresh)
        clean &= self._run(todo.first, errors)
        if ('filters', '') in errors:
            # A port must not carry a packet without its filters.
            waiting = {names.tap(key) for key in made.filtered}
            for key in made.filtered:
                errors.setdefault(('ports', key), errors['filters', ''])
            todo.then = [action for action in todo.then if action.op[0] != 'link.add' or action.op[2] not in waiting]
        clean &= self._run(todo.then, errors)
        clean &= self._run(todo.last, errors)
        clean &= self._serve_dhcp(made, observed, errors)
        for helper in self.helpers:
            helper.join(made, wanted, errors)
        if todo.first or todo.then:
            LOG.info('%d operations done', len(todo.first) + len(todo.then) + len(todo.last))
        redo = any(action.op[0] == 'link.set' and {'up', 'mac'} & action.op[3].keys() for action in todo.then)
        if clean and not redo:
            self._remember(made, observed)
        return self._results(wanted, errors)

    def _remember(self, made, observed):
        """Trust, until the next audit, that the host is now as planned."""
        observed.spaces, observed.tables = made.spaces, made.tables
        self.observed = observed

    def _run(self, actions, errors):
        """Do actions; note for each owner the first thing that went wrong. Returns whether nothing did."""
        if not actions:
            return True
        clean = True
        for action, error in zip(actions, self.hands.perform([action.op for action in actions]), strict=True):
            if error is not None:
                clean = False
                owner = action.owner
                if action.op[0] == 'nft' and action.op[1] == names.HOST:
                    owner = ('filters', '')
                LOG.warning('%s', error)
                if owner is not None:
                    errors.setdefault(owner, error)
        return clean

    def _stops(self, made, observed):
        """DHCP processes that should not be, or should be others."""
        wanted = {service.folder: (key, service) for key, service in made.services.items()}
        actions = []
        for folder, running in observed.services.items():
            if os.path.dirname(folder) != self.settings.dhcp_folder:
                continue
            for pid, pid_name, inode in list(running):
                key, service = wanted.get(folder, (None, None))
                if service is None or pid_name != service.pid_name or len(running) > 1 \
                        or inode != observed.inodes.get(names.dhcp_namespace(key)) \
                        or (Folder(folder).applied() != service.content and Folder(folder).stale(service)):
                    actions.append(layout.Action(('dnsmasq.stop', pid)))
        stopped = {action.op[1] for action in actions}
        for folder, running in observed.services.items():
            observed.services[folder] = [one for one in running if one[0] not in stopped]
        return actions

    def _serve_dhcp(self, made, observed, errors):
        """Write what DHCP processes read, and start or tell those that have not read it."""
        actions, told = [], []
        for key, service in made.services.items():
            owner, folder = ('networks', key), Folder(service.folder)
            running = observed.services.get(service.folder)
            if running and folder.applied() == service.content:
                continue
            try:
                folder.write(service)
                if not running:
                    folder.prune(service)
                folder.note_holders(service)
            except OSError as error:
                errors.setdefault(owner, f'the files of DHCP: {error}')
                continue
            if running:
                actions.append(layout.Action(('dnsmasq.reload', running[0][0]), owner))
            else:
                actions.append(layout.Action(('dnsmasq.start', names.dhcp_namespace(key), service.folder, service.main),
                                             owner))
            told.append((owner, folder, service))
        clean = self._run(actions, errors)
        for owner, folder, service in told:
            if owner not in errors:
                folder.note_applied(service.content)
        if any(action.op[0] == 'dnsmasq.start' for action in actions):
            observed.services = self.hands.services()
        self._forget_dhcp(made)
        return clean

    def _forget_dhcp(self, made):
        """Delete the files of networks that are no longer served here."""
        try:
            known = os.listdir(self.settings.dhcp_folder)
        except FileNotFoundError:
            return
        for key in known:
            if key not in made.services and names.UUID.match(key):
                Folder(os.path.join(self.settings.dhcp_folder, key)).remove()

    def _results(self, wanted, errors):
        results = {}
        for kind in REPORTED:
            for key in wanted.documents(kind):
                results[kind, key] = errors.get((kind, key))
        for key, port in wanted.ports.items():
            if results['ports', key] is None and ('networks', port.network_id) in errors:
                results['ports', key] = errors['networks', port.network_id]
        for key, one in wanted.floating_ips.items():
            if results['floating_ips', key] is None:
                results['floating_ips', key] = errors.get(('routers', one.router_id))
        return results


def _uid(user):
    """The uid of a user name; None (root alone may open taps) where there is none."""
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        LOG.warning('There is no user %s: taps can be opened by root only', user)
        return None
