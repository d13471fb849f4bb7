"""What a host should have: the documents that the conductor sends to an agent.

The wanted state of a host is a flat set of small documents. Each has a ``kind``, an ``id`` that is unique within
its kind, and a ``generation`` that grows whenever the document changes. Nothing is nested that can grow with the
number of ports, so that one new port costs a few small documents on each host concerned, however large its
network, security group or router is.

=================== ============================================ ==============================================
kind                one document is                              a host gets the documents
=================== ============================================ ==============================================
``networks``        a network with its subnets                   of networks it *takes part in*: that have on it a
                                                                 bound port, their DHCP service, or a router leg
``ports``           a port that a guest here is plugged into     of ports whose ``binding:host_id`` is the host, DHCP
                                                                 and router ports excepted
``members``         any port with an address or a host           of all ports of the networks it takes part in, its
                                                                 own, DHCP and router ports included; a network that
                                                                 it only has router gateways on is left out
``security_groups`` a group with its rules                       of groups that a port of ``ports`` is in
``set_members``     addresses that belong to an address set      of sets that a rule of a group above names as remote
``routers``         a router with its legs                       of routers that are placed on the host
``floating_ips``    a floating address in use                    of addresses on those routers
=================== ============================================ ==============================================

``host_state(host, since, agent)`` answers an :class:`Answer`. Its ``generation`` is a number of the host that
grows with every change of any document that the host gets. The conductor answers

* ``full=False`` with nothing in it when nothing changed since ``since``; this is the common case and must be cheap;
* ``full=False`` with the documents that changed or became relevant (``set``), and the ids of those that were
  deleted or stopped being relevant (``gone``);
* ``full=True`` with all documents when ``since`` is None, is greater than the current generation (a restored
  database), or is so old that what has gone since is no longer known.

All documents are plain JSON objects with exactly the fields of the classes below; a reader ignores fields that
it does not know, and takes the default of a field that is absent. Addresses are written in the canonical form
of ``ipaddress``, MAC addresses in lower case with colons.
"""
from dataclasses import asdict, dataclass, field, fields


@dataclass(frozen=True, slots=True)
class FixedIP:
    subnet_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet inside its :class:`Network`; the names are those of the API."""

    id: str
    cidr: str
    ip_version: int = 4
    gateway_ip: str | None = None
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[dict, ...] = ()              # {'destination': cidr, 'nexthop': address}
    ipv6_address_mode: str | None = None            # slaac, dhcpv6-stateful, dhcpv6-stateless
    ipv6_ra_mode: str | None = None


@dataclass(frozen=True, slots=True)
class Dhcp:
    """The port of a network's DHCP service, where this host offers that service."""

    port_id: str
    mac: str
    fixed_ips: tuple[FixedIP, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    id: str
    generation: int = 0
    type: str = 'vxlan'                             # vxlan, flat, local
    segmentation_id: int | None = None              # the VNI, with vxlan
    physical_network: str | None = None             # with flat
    mtu: int = 1450
    admin_state_up: bool = True
    dns_domain: str = ''
    subnets: tuple[Subnet, ...] = ()
    dhcp: Dhcp | None = None                        # None: this host does not serve DHCP to it


@dataclass(frozen=True, slots=True)
class AddressPair:
    ip_address: str                                 # an address or a CIDR
    mac_address: str


@dataclass(frozen=True, slots=True)
class Qos:
    """Limits of a port, seen from the guest, in kilobits a second and kilobits, and the mark of what it sends; None is none."""

    egress_kbps: int | None = None
    egress_burst_kbits: int | None = None
    ingress_kbps: int | None = None
    ingress_burst_kbits: int | None = None
    dscp: int | None = None


@dataclass(frozen=True, slots=True)
class Port:
    id: str
    network_id: str
    mac: str
    generation: int = 0
    project_id: str = ''
    device_id: str = ''
    device_owner: str = ''
    fixed_ips: tuple[FixedIP, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    port_security_enabled: bool = True
    security_groups: tuple[str, ...] = ()
    admin_state_up: bool = True
    qos: Qos | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A port of a network as its neighbours need it: for forwarding, for DHCP and for metadata."""

    id: str                                         # the port's id
    network_id: str
    mac: str
    generation: int = 0
    fixed_ips: tuple[FixedIP, ...] = ()
    tunnel_ip: str | None = None                    # AgentFacts.tunnel_ip of the port's host; None while unbound
    device_owner: str = ''
    device_id: str = ''
    project_id: str = ''
    hostname: str | None = None                     # dns_name of the port, if any
    extra_dhcp_opts: tuple[dict, ...] = ()          # {'opt_name', 'opt_value', 'ip_version': 4|6}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a security group; None means any."""

    id: str
    direction: str                                  # ingress, egress
    ethertype: str = 'IPv4'                         # IPv4, IPv6
    protocol: str | None = None                     # a name (tcp, icmp, ipv6-icmp...) or a number as a string
    port_range_min: int | None = None               # the ICMP type, with ICMP
    port_range_max: int | None = None               # the ICMP code, with ICMP
    remote_ip_prefix: str | None = None
    remote_set: str | None = None                   # id of an address set: a security group or an address group


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    id: str
    generation: int = 0
    stateful: bool = True
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class SetMember:
    """Some addresses of an address set.

    For a security group: one document a port in it, with id ``<group id>/<port id>`` and the fixed and allowed
    addresses of the port. For an address group: one document with id ``<group id>`` and all of its addresses.
    """

    id: str
    set_id: str
    generation: int = 0
    addresses: tuple[str, ...] = ()                 # addresses or CIDRs, both versions


@dataclass(frozen=True, slots=True)
class RouterLeg:
    """A port of a router; what its addresses mean (prefix, gateway, MTU) is found in its network's document."""

    port_id: str
    network_id: str
    mac: str
    fixed_ips: tuple[FixedIP, ...] = ()


@dataclass(frozen=True, slots=True)
class Router:
    id: str
    generation: int = 0
    project_id: str = ''
    admin_state_up: bool = True
    legs: tuple[RouterLeg, ...] = ()                # the internal interfaces
    gateway: RouterLeg | None = None
    enable_snat: bool = True
    routes: tuple[dict, ...] = ()                   # {'destination': cidr, 'nexthop': address}


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A port forwarding of a floating address."""

    id: str
    protocol: str                                   # tcp, udp, sctp...
    external_port: str                              # '2222', or a range '2222:2230'
    internal_address: str
    internal_port: str


@dataclass(frozen=True, slots=True)
class FloatingIP:
    id: str
    router_id: str
    floating_address: str
    generation: int = 0
    fixed_address: str | None = None                # None when it only has port forwardings
    port_id: str | None = None
    forwardings: tuple[Forwarding, ...] = ()


KINDS = {
    'networks': Network, 'ports': Port, 'members': Member, 'security_groups': SecurityGroup,
    'set_members': SetMember, 'routers': Router, 'floating_ips': FloatingIP,
}


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What an agent says of itself with every question."""

    binary: str
    version: str
    started_at: str                                 # ISO 8601, UTC
    driver: str                                     # linuxbridge
    tunnel_ip: str | None                           # where other hosts send VXLAN packets to; None: no tunnels here
    bridge_mappings: dict = field(default_factory=dict)     # physical network to bridge
    interval: int = 15                              # seconds between two questions when nothing happens


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to ``host_state``: documents as dicts by kind, and ids that have gone, by kind."""

    generation: int
    full: bool = False
    set: dict = field(default_factory=dict)         # {'ports': [{...}, ...], ...}
    gone: dict = field(default_factory=dict)        # {'ports': ['<id>', ...], ...}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one document, of any kind of ``networks``, ``ports``, ``routers`` and ``floating_ips``.

    A port is in order (``error`` None) when its tap is on its bridge with all its filters in place: its guest may
    start. A network is in order when its bridge, its tunnel and, where this host serves it, DHCP are. A result is
    sent again when the document changes, when the outcome changes, and for everything after an agent's start.
    """

    kind: str
    id: str
    generation: int
    error: str | None = None                        # a sentence for an operator


NESTED = {
    (Network, 'subnets'): Subnet, (Network, 'dhcp'): Dhcp, (Dhcp, 'fixed_ips'): FixedIP, (Port, 'fixed_ips'): FixedIP,
    (Port, 'allowed_address_pairs'): AddressPair, (Port, 'qos'): Qos, (Member, 'fixed_ips'): FixedIP,
    (SecurityGroup, 'rules'): Rule, (RouterLeg, 'fixed_ips'): FixedIP, (Router, 'legs'): RouterLeg,
    (Router, 'gateway'): RouterLeg, (FloatingIP, 'forwardings'): Forwarding,
}
_NAMES = {}


def load(cls, document):
    """An instance of ``cls`` from a JSON object; unknown fields are ignored.

    :raises TypeError: if a field without a default is absent.
    """
    names = _NAMES.get(cls)
    if names is None:
        names = _NAMES[cls] = {one.name: NESTED.get((cls, one.name)) for one in fields(cls)}
    values = {}
    for name, value in document.items():
        if name not in names:
            continue
        inner = names[name]
        if isinstance(value, list | tuple):
            value = tuple(load(inner, each) for each in value) if inner else tuple(value)
        elif inner and value is not None:
            value = load(inner, value)
        values[name] = value
    return cls(**values)


def dump(document):
    """The JSON object of a document, an answer or a result."""
    return asdict(document)


class Wanted:
    """An agent's copy of the wanted state of its host: one dictionary, id to document, a kind."""

    def __init__(self):
        self.generation = None
        self.networks, self.ports, self.members = {}, {}, {}
        self.security_groups, self.set_members = {}, {}
        self.routers, self.floating_ips = {}, {}

    def documents(self, kind):
        return getattr(self, kind)

    def apply(self, answer):
        """Take in an :class:`Answer` (as a dict).

        :returns: the set of (kind, id) that changed, came or went.
        """
        changed = set()
        fresh = {kind: {} for kind in KINDS}
        for kind, documents in answer['set'].items():
            if kind in KINDS:
                fresh[kind] = {document['id']: load(KINDS[kind], document) for document in documents}
        for kind in KINDS:
            have = self.documents(kind)
            gone = have.keys() - fresh[kind].keys() if answer['full'] else answer['gone'].get(kind, ())
            for key in list(gone):
                if have.pop(key, None) is not None:
                    changed.add((kind, key))
            for key, document in fresh[kind].items():
                if have.get(key) != document:
                    have[key] = document
                    changed.add((kind, key))
        self.generation = answer['generation']
        return changed
