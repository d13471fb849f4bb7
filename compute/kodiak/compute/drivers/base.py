"""What a hypervisor driver does for the agent.

A driver is a set of hands: each method brings one thing about and may be called again after a crash at any point
in it. What to do, in what order and whether it was done already is the agent's business
(:mod:`kodiak.compute.agent.plan`). One driver object serves one host; its methods are called by several threads,
but never by two for the same instance.
"""
import abc
import dataclasses
import re


class Fault(Exception):
    """Why something could not be done, in a sentence that the owner of the instance may read.

    :param code: a short name for programs (``image-invalid``, ``no-disk-space``, ``tap-missing``).
    :param final: True if trying again would end the same way.
    """

    def __init__(self, code, message, final=False):
        self.code = code
        self.message = message
        self.final = final
        super().__init__(f'{code}: {message}')


@dataclasses.dataclass
class Found:
    """A domain of ours as it is: its power state (``agent.state.POWER_STATES``) and what is plugged into it.

    ``halted`` is true where a guest that runs was stopped by the hypervisor because the storage of a disk does not answer.
    """

    power: str
    ports: frozenset = frozenset()
    volumes: frozenset = frozenset()
    halted: bool = False


@dataclasses.dataclass
class Record:
    """What the agent must not forget about an instance, kept by the driver next to the disks.

    ``last_operation`` is the number of the last operation that ended, ``outcomes`` those that the conductor has
    not forgotten yet. ``flavor`` and ``image`` are those that the disks were built for. ``started`` says which
    wish to run has been fulfilled: ``{'asked': desired_generation, 'boot': boot id of the host}``. ``rescued`` is true
    while the domain is made to boot from the rescue image.
    """

    uuid: str
    built: bool = False
    last_operation: int = 0
    outcomes: list = dataclasses.field(default_factory=list)
    flavor: dict | None = None
    image: dict | None = None
    started: dict | None = None
    rescued: bool = False
    domain_name: str = ''


def initiator(host):
    """The iSCSI name that the guests of a host go by at their targets."""
    return 'iqn.2010-10.org.openstack:' + re.sub('[^a-z0-9.-]', '-', host.lower())


class Driver(abc.ABC):
    """The interface. ``instance`` is an ``agent.state.Instance`` and ``record`` its :class:`Record`.

    :param conf: the configuration of compute.
    :param host: the name of the host that this object stands for.
    :param images: a :class:`~kodiak.compute.agent.images.Images`: ``download(image_id)`` gives an iterator of bytes,
        ``upload(image_id, file, size, disk_format)`` sends.
    :param keys: a :class:`~kodiak.compute.agent.keys.Keys`, or None.
    """

    def __init__(self, conf, host, images, keys=None):
        self.conf = conf
        self.host = host
        self.images = images
        self.keys = keys

    # The host

    def start(self, changed):
        """Begin to work. ``changed(uuid)`` is called, from any thread, when a guest changed its state by itself."""
        return None

    def interrupt(self):
        """The agent is about to stop: methods that wait for a guest give up soon."""
        return None

    def close(self):
        """Let go of everything. Guests are left as they are."""
        return None

    def tidy(self):
        """Periodic housekeeping (unused images). Called about once a minute."""
        return None

    def ready(self):
        """None if the hypervisor answers, otherwise a sentence why not. While it does not, nothing is reconciled."""
        return None

    def explain(self, error):
        """The :class:`Fault` for an exception that one of these methods let through."""
        return Fault('hypervisor', f'The hypervisor driver failed: {type(error).__name__}.')

    @abc.abstractmethod
    def resources(self):
        """The fields of ``agent.state.Resources`` that the driver knows, as a dictionary."""

    @abc.abstractmethod
    def boot_id(self):
        """A text that changes when the host was booted anew, and its guests therefore are down."""

    # Memory

    @abc.abstractmethod
    def records(self):
        """The uuids that there is anything of on this host: a record, disks, or a domain of ours."""

    @abc.abstractmethod
    def load(self, uuid):
        """The :class:`Record` of an instance, or None."""

    @abc.abstractmethod
    def save(self, record):
        """Keep a record. When this returns it survives a crash of the agent."""

    # Looking

    @abc.abstractmethod
    def look(self, uuid):
        """The domain of an instance as a :class:`Found`, or None where there is none of ours."""

    # Disks and domain

    @abc.abstractmethod
    def build(self, instance, record):
        """Make the disks (from the image, or from another host) that are not there yet."""

    @abc.abstractmethod
    def define(self, instance, record):
        """Make the domain's definition what the spec says. A running guest is not disturbed."""

    @abc.abstractmethod
    def remove(self, uuid):
        """Remove domain, disks and record. Nothing is left when this returns; it is no error if nothing was there."""

    # Power

    @abc.abstractmethod
    def power_on(self, instance, record):
        """Start the guest, or let it go on from where it was suspended."""

    @abc.abstractmethod
    def power_off(self, instance, timeout):
        """Ask the guest to shut down; switch it off after ``timeout`` seconds. 0 switches off at once."""

    @abc.abstractmethod
    def pause(self, instance):
        """Freeze the guest in memory."""

    @abc.abstractmethod
    def unpause(self, instance):
        """Let a frozen guest go on."""

    @abc.abstractmethod
    def suspend(self, instance):
        """Save the guest's memory to disk and stop it."""

    @abc.abstractmethod
    def forget_suspended(self, instance):
        """Throw away the saved memory of a suspended guest."""

    # Devices

    @abc.abstractmethod
    def plug(self, instance, record, ports, volumes):
        """Plug ports and volumes (objects of the spec) into the domain, running or not."""

    @abc.abstractmethod
    def unplug(self, instance, record, ports, volumes):
        """Unplug what has these ids."""

    def swap(self, instance, record, volume):
        """Copy the volume ``volume.replaces`` of a running guest to ``volume``, and let the guest go on with that."""
        raise Fault('not-supported', 'This hypervisor cannot replace a disk of a running guest.', final=True)

    # Operations: each returns the result of the operation as a dictionary

    @abc.abstractmethod
    def reboot(self, instance, record, soft):
        """Restart the guest: by its own operating system if ``soft`` and it obeys in time, else from a fresh domain."""

    @abc.abstractmethod
    def rebuild(self, instance, record, preserve_ephemeral):
        """Throw the disks away; the next :meth:`build` makes them from the spec's image."""

    @abc.abstractmethod
    def snapshot(self, instance, record, image_id):
        """Upload the root disk as it is now to the image. The guest goes on running if it ran."""

    @abc.abstractmethod
    def resize(self, instance, record, number):
        """Keep the disks as they are and make them fit ``spec.flavor``. The guest is off. ``number`` is the operation's."""

    @abc.abstractmethod
    def resize_confirm(self, instance, record):
        """Remove the disks kept by :meth:`resize`."""

    @abc.abstractmethod
    def resize_revert(self, instance, record):
        """Put the disks kept by :meth:`resize` back. The guest is off."""

    def migrate_out(self, instance, record, token_sha256):
        """Serve the disks of a guest that is off to whoever has the token: ``{'url', 'disks'}``."""
        raise Fault('not-supported', 'This hypervisor cannot hand an instance to another host.', final=True)

    def reset_network(self, instance, record):
        """Unplug every NIC and plug it again."""
        ports = instance.spec.ports
        self.unplug(instance, record, [port.id for port in ports], [])
        self.plug(instance, record, ports, [])
        return {}

    def rescue_ended(self, instance):
        """The guest will not boot from the rescue image again: its disk may go."""
        return None

    def extend_volume(self, instance, volume_id, size):
        """Let a running guest see that a volume has ``size`` GiB now."""
        raise Fault('not-supported', 'This hypervisor cannot grow a disk of a running guest.', final=True)

    def move_volume(self, instance, volume):
        """Copy the disk of a running guest to where the connection of ``volume`` (a ``state.Volume``) leads, which is the same
        volume on another back end, and let the guest go on there. Where it is there already a copy to elsewhere ends.

        :raises Fault: ``copying`` while it takes time: it is asked for again."""
        raise Fault('not-supported', 'This hypervisor cannot move a disk of a running guest.', final=True)

    def nmi(self, instance):
        """Send the guest a non-maskable interrupt, which makes it write a crash dump."""
        raise Fault('not-supported', 'This hypervisor cannot interrupt a guest.', final=True)

    def set_password(self, instance, user, password):
        """Set a password in the running guest, through its own agent."""
        raise Fault('not-supported', 'This hypervisor cannot set a password in a guest.', final=True)

    # Ahead of time

    def fetch(self, image):
        """Have the data of an image (``agent.state.Image``) on the host before a server needs it."""
        return None

    # Questions

    @abc.abstractmethod
    def console_output(self, uuid, length):
        """The last ``length`` bytes of the serial log (all that is kept, if None)."""

    @abc.abstractmethod
    def console_address(self, uuid, kind):
        """An ``agent.state.ConsoleAddress``, or None."""

    @abc.abstractmethod
    def diagnostics(self, uuid):
        """Counters of a running guest, as the compute API names them since 2.48."""
