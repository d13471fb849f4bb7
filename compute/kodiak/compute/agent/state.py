"""What an agent is told about the instances of its host, and what it says back.

These shapes travel over RPC as plain dictionaries (:func:`dump`, ``Class.load``); keys that one side does
not know are ignored, so that the two sides may be of different releases.

The conductor says **what should be**: one :class:`Instance` for every instance of the host, with a
``desired`` state, a :class:`Spec` and numbered one-off :class:`Operation`. The agent brings the domain to it
and sends a :class:`Report`. Nothing else passes between them about an instance.

* ``desired`` is level-driven: ``running``, ``stopped``, ``paused``, ``suspended`` or ``absent``. An instance
  that should leave the host (deleted, shelved and offloaded, the source of a confirmed migration) stays
  listed as ``absent`` until the agent has reported ``power_state='absent'``.
* The spec is level-driven too: ports and volumes that appear in it are plugged, those that vanish are
  unplugged, ``rescue`` starts the guest from the rescue image and back. The size (flavor) and the image take
  effect only when the disks are first built and by the operations ``resize`` and ``rebuild``.
* An operation is done once, in the order of its number, before the desired state is applied. Its outcome is in
  every report until the conductor lists it no more. A later operation is not begun before the earlier ended;
  one that failed does not stop the next.
* A guest that powered itself off is reported with ``self_stopped``; it is not started again until
  ``desired_generation`` grows (someone asked for it), or the host was rebooted.

============== ======================================= ===========================================================
operation      args                                    result
============== ======================================= ===========================================================
reboot         type: SOFT or HARD                      {}
rebuild        preserve_ephemeral: bool                {} (new root disk from ``spec.image``; ephemeral and swap too)
snapshot       image_id                                {size: bytes, disk_format} (uploads to the queued image)
resize         {}                                      {} (``spec.flavor`` is the new one; the old disks are kept)
resize_confirm {}                                      {} (the kept disks are removed)
resize_revert  {}                                      {} (``spec.flavor`` is the old one again; the kept disks return)
extend_volume  volume_id, size: GiB                    {} (the guest sees that a volume has grown)
move_volume    volume_id, attachment_id, connection    {} (the guest's disk was copied to where that leads, and is there now;
                                                       nothing else is begun before the conductor has read this outcome)
migrate_out    token_sha256: hex                       {url, disks: [..]} (stopped, and served to who has the token)
reset_network  {}                                      {} (every NIC is unplugged and plugged again)
nmi            {}                                      {}
set_password   user, password                          {} (needs the guest's own agent)
============== ======================================= ===========================================================
"""
import dataclasses
import functools
import types
import typing

DESIRED = ('running', 'stopped', 'paused', 'suspended', 'absent')
POWER_STATES = ('running', 'stopped', 'paused', 'suspended', 'crashed', 'absent', 'nostate')
OPERATIONS = ('reboot', 'rebuild', 'snapshot', 'resize', 'resize_confirm', 'resize_revert', 'migrate_out',
              'reset_network', 'nmi', 'set_password', 'extend_volume', 'move_volume')


@functools.cache
def _fields(cls):
    hints = typing.get_type_hints(cls)
    result = {}
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        many = typing.get_origin(kind) is list
        options = typing.get_args(kind) if many or typing.get_origin(kind) is types.UnionType else (kind,)
        nested = next((option for option in options if dataclasses.is_dataclass(option)), None)
        result[field.name] = (nested, many)
    return result


class Shape:
    """A dataclass that can be made from a dictionary of an older or newer release."""

    @classmethod
    def load(cls, data):
        values = {}
        for name, (nested, many) in _fields(cls).items():
            if name not in data:
                continue
            value = data[name]
            if nested is not None and value is not None:
                value = [nested.load(item) for item in value] if many else nested.load(value)
            values[name] = value
        return cls(**values)


def dump(shape):
    """The dictionary that travels."""
    return dataclasses.asdict(shape)


@dataclasses.dataclass
class Image(Shape):
    """An image to make a root disk from. ``hash`` is its sha512 in hex, ``size`` in bytes."""

    id: str
    name: str = ''
    disk_format: str = 'qcow2'
    hash: str | None = None
    checksum: str | None = None
    size: int = 0
    min_disk: int = 0
    properties: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Flavor(Shape):
    """A size. ``ram`` and ``swap`` in MiB, ``root`` and ``ephemeral`` in GiB; root 0 means as large as the image."""

    name: str
    vcpus: int
    ram: int
    root: int = 0
    ephemeral: int = 0
    swap: int = 0
    id: str = ''
    extra_specs: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class FixedIP(Shape):
    """One address of a port, with what a guest that gets no DHCP must know.

    ``cidr`` is the subnet (``10.0.0.0/24``), ``routes`` a list of ``{'destination': cidr, 'nexthop': ip}``.
    """

    address: str
    cidr: str
    version: int = 4
    gateway: str | None = None
    dns: list = dataclasses.field(default_factory=list)
    routes: list = dataclasses.field(default_factory=list)
    dhcp: bool = True


@dataclasses.dataclass
class Port(Shape):
    """A NIC. ``tap`` is made by the network agent and is there before the guest starts."""

    id: str
    mac: str
    tap: str
    mtu: int = 1500
    network_id: str = ''
    network_name: str = ''
    fixed_ips: list[FixedIP] = dataclasses.field(default_factory=list)
    tag: str | None = None


@dataclasses.dataclass
class Volume(Shape):
    """A volume of the block storage service. ``connection`` is what its initialize-connection answered:
    ``{'driver_volume_type': 'iscsi'|'nbd'|'rbd'|'local', 'data': {...}}``. ``size`` in GiB; ``device_type`` disk, cdrom or
    lun; ``attachment_id`` tells one connection of a volume from another. ``replaces`` is the id of a volume that this one takes
    the place of: a guest that has that one gets what is on it copied to this one while it runs."""

    id: str
    device: str = ''
    boot_index: int | None = None
    connection: dict = dataclasses.field(default_factory=dict)
    size: int = 0
    bus: str | None = None
    read_only: bool = False
    multiattach: bool = False
    tag: str | None = None
    device_type: str = 'disk'
    attachment_id: str = ''
    replaces: str | None = None


@dataclasses.dataclass
class Spec(Shape):
    """What the instance is made of.

    ``domain_name`` is the name in the hypervisor (``instance-0000002a``). ``user_data`` is base64.
    ``files`` are ``{'path', 'contents' (base64)}``. ``ephemerals`` are ``{'size': GiB, 'format': str|None}``; when
    None there is one of ``flavor.ephemeral``. ``image`` is None for an instance that boots from a volume; ``hardware`` then
    has the properties of the image that the volume was made from.
    ``rescue`` is the image to be rescued with, while it should be. ``console`` names the graphical console.
    ``hostname`` is what the guest is told it is called, with a domain if it should have one; ``security_groups`` are
    names and ``floating_ips`` addresses, for the EC2 metadata.
    """

    uuid: str
    name: str
    domain_name: str
    flavor: Flavor
    image: Image | None = None
    hardware: dict | None = None
    rescue: Image | None = None
    hostname: str = ''
    project_id: str = ''
    project_name: str = ''
    user_id: str = ''
    user_name: str = ''
    ports: list[Port] = dataclasses.field(default_factory=list)
    volumes: list[Volume] = dataclasses.field(default_factory=list)
    ephemerals: list | None = None
    config_drive: bool = False
    user_data: str | None = None
    vendor_data: dict = dataclasses.field(default_factory=dict)
    metadata: dict = dataclasses.field(default_factory=dict)
    files: list = dataclasses.field(default_factory=list)
    key_name: str | None = None
    key_type: str = 'ssh'
    public_key: str | None = None
    admin_password: str | None = None
    security_groups: list = dataclasses.field(default_factory=list)
    floating_ips: list = dataclasses.field(default_factory=list)
    availability_zone: str = 'nova'
    launch_index: int = 0
    reservation_id: str = ''
    created_at: str = ''
    console: str = 'vnc'


@dataclasses.dataclass
class Operation(Shape):
    """Something to be done once. Numbers grow within an instance and are never used again."""

    number: int
    kind: str
    args: dict = dataclasses.field(default_factory=dict)
    request_id: str = ''


@dataclasses.dataclass
class Source(Shape):
    """Where the disks of an instance that comes from another host are fetched from (a cold migration)."""

    url: str
    token: str


@dataclasses.dataclass
class Instance(Shape):
    """What should be.

    ``generation`` grows with every change of the row that concerns the agent; ``desired_generation`` is the
    generation at which ``desired`` was last asked for. ``built`` is true once a report with ``built`` arrived from
    this host: disks that are missing then are an error, and are not made anew. ``stop_timeout`` in seconds is how
    long a guest may take to shut down before it is switched off.
    """

    uuid: str
    generation: int
    desired: str
    spec: Spec
    desired_generation: int = 0
    built: bool = False
    operations: list[Operation] = dataclasses.field(default_factory=list)
    source: Source | None = None
    stop_timeout: int = 60
    request_id: str = ''


@dataclasses.dataclass
class HostState(Shape):
    """The answer to ``host_state`` for one host.

    ``generation`` is given back as ``since`` in the next question. With ``full`` these are all instances of the
    host, and whatever else the agent finds of its own is not wanted (it still asks ``unwanted`` first);
    without, these are those that changed since.
    """

    generation: int
    full: bool
    instances: list[Instance] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Fault(Shape):
    """Why an instance is not, or not yet, as it should be.

    ``code`` is a short name (``no-disk-space``, ``image-invalid``, ``tap-missing``, ``hypervisor``), ``message``
    a sentence that the owner may read. With ``final`` trying again would not help. ``attempts`` counts.
    """

    code: str
    message: str
    final: bool = False
    attempts: int = 1


@dataclasses.dataclass
class Outcome(Shape):
    """How an operation ended: with a ``result``, or with a ``fault``."""

    number: int
    result: dict = dataclasses.field(default_factory=dict)
    fault: Fault | None = None


@dataclasses.dataclass
class Report(Shape):
    """What is.

    ``generation`` is the one that the agent was working to; ``settled`` says that everything it asks for is done.
    ``outcomes`` holds those of all operations that the conductor still lists and that have ended, ``plugged`` the
    ids of the ports and volumes that the domain really has. ``self_stopped`` says that the guest went down by
    itself although it should run.
    """

    uuid: str
    host: str
    generation: int
    power_state: str
    settled: bool = False
    built: bool = False
    self_stopped: bool = False
    fault: Fault | None = None
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    plugged: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Resources(Shape):
    """What a host offers, for placement's inventory and ``os-hypervisors``.

    ``agent`` is the RPC server name of the process that answers for the host (casts go there). ``disk_gb`` is the
    size of the file system of the disks, ``disk_free_gb`` what is free of it now. ``connector`` is what block storage is told
    of the host beside its name and address (``initiator``). ``version`` and ``started_at`` (ISO 8601, UTC) are the process's.
    """

    host: str
    agent: str
    hypervisor_hostname: str
    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    memory_mb: int
    disk_gb: int
    disk_free_gb: int = 0
    memory_used_mb: int = 0
    host_ip: str = '127.0.0.1'
    uptime: str = ''
    running: int = 0
    cpu_info: dict = dataclasses.field(default_factory=dict)
    traits: list = dataclasses.field(default_factory=list)
    architectures: list = dataclasses.field(default_factory=list)
    connector: dict = dataclasses.field(default_factory=dict)
    version: str = ''
    started_at: str = ''


@dataclasses.dataclass
class ConsoleAddress(Shape):
    """Where a guest's console listens: TCP ``host``:``port`` for ``vnc``; for ``serial`` the agent's own port, with
    ``path`` naming the instance. ``password`` is the one that the VNC server asks for, or None."""

    host: str
    port: int
    path: str | None = None
    password: str | None = None
