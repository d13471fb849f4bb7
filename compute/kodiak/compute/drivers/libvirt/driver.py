"""The libvirt driver: the interface of :mod:`kodiak.compute.drivers.base` over QEMU domains.

The domain's definition is written anew from the spec whenever it is started, so a definition that was changed by
hand or by an older release heals then. Guests outlive the agent and libvirtd.
"""
import grp
import logging
import os
import threading

import libvirt

from kodiak.compute.agent import state
from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import cache, console, devices, door, host, probe, secrets, snapshot, transfer
from kodiak.compute.drivers.libvirt import domain as definition
from kodiak.compute.drivers.libvirt.connection import Connection
from kodiak.compute.drivers.libvirt.folder import MODE, Folder, used_bases

LOG = logging.getLogger(__name__)

GROUP = 'kvm'       # QEMU's user runs in it, and the agent's user is a member
SOFT_REBOOT_SECONDS = 60

#: What libvirt says of a definition that it will not take however often it is asked.
REFUSALS = (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_XML_DETAIL,
            libvirt.VIR_ERR_XML_INVALID_SCHEMA)


class LibvirtDriver(base.Driver):
    """See :class:`base.Driver`. Folders: ``<state_path>/compute/instances`` and ``.../images``."""

    def __init__(self, conf, host, images, keys=None):
        super().__init__(conf, host, images, keys)
        self.instances = os.path.join(conf.state_path, 'compute', 'instances')
        self.connection = None
        self.platform = None
        self._probing = threading.Lock()
        self.cache = None
        self.door = None
        self.tickets = None
        self.secrets = None

    # The host

    def start(self, changed):
        bases = os.path.join(self.conf.state_path, 'compute', 'images')
        for path in (self.instances, bases):
            _shared_folder(path)
        self.cache = cache.Cache(bases, self.images.download, self.conf.agent.image_cache_hours * 3600)
        self.connection = Connection(self.conf.agent.libvirt_uri, changed)
        self.tickets = console.Tickets()
        self.secrets = secrets.Secrets(self.connection, self.keys)
        self.door = door.Door(self.conf.agent.host_ip, self.conf.agent.port, self._folder, self._serial)

    def interrupt(self):
        if self.connection is not None:
            self.connection.interrupt()

    def close(self):
        for part in (self.door, self.connection):
            if part is not None:
                part.close()

    def tidy(self):
        self.cache.prune(used_bases(self.instances))
        self.secrets.tidy()

    def fetch(self, image):
        self.cache.get(image)

    def ready(self):
        try:
            connection = self.connection.get()
            with self._probing:
                if self.platform is not None:
                    return None
                self.platform = probe.platform(connection, self.conf.agent.virt_type, self.cache.path,
                                               self.conf.agent.console_bind, self.boot_id())
                self.platform.initiator = base.initiator(self.host)
            return None
        except libvirt.libvirtError as error:
            return f'libvirt does not answer at {self.conf.agent.libvirt_uri}: {error}'

    def explain(self, error):
        if isinstance(error, libvirt.libvirtError):
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return base.Fault('hypervisor', 'The domain of the instance is not there.')
            # Owners read this, and have no use for where the host keeps things.
            message = (error.get_error_message() or '').replace(self.conf.state_path, '')
            return base.Fault('hypervisor', f'The hypervisor says: {message}', final=error.get_error_code() in REFUSALS)
        return super().explain(error)

    def resources(self):
        return host.describe(self.connection.get(), self.platform, self.instances)

    def boot_id(self):
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
            return file.read().strip()

    # Memory

    def _folder(self, uuid):
        return Folder(self.instances, uuid, self.cache)

    def records(self):
        found = {name for name in os.listdir(self.instances) if transfer.UUID.fullmatch(name)}
        for domain in self.connection.get().listAllDomains():
            if self._owns(domain):
                found.add(domain.UUIDString())
        return found

    def load(self, uuid):
        return self._folder(uuid).load()

    def save(self, record):
        self._folder(record.uuid).save(record)

    # Looking

    def _owns(self, domain):
        try:
            return definition.owner(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) == self.host
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise

    def _domain(self, uuid):
        """The domain of an instance if it is ours, or None.

        :raises base.Fault: if somebody else has a domain with that uuid here.
        """
        domain = self.connection.find(uuid)
        if domain is not None and not self._owns(domain):
            raise base.Fault('foreign-domain', 'The host has a domain with the uuid of the instance that is not ours.',
                             final=True)
        return domain

    def _have(self, uuid):
        domain = self._domain(uuid)
        if domain is None:
            raise base.Fault('hypervisor', 'The domain of the instance is not there.')
        return domain

    def look(self, uuid):
        domain = self._domain(uuid)
        if domain is None:
            return None
        code, reason = domain.state()
        power = {libvirt.VIR_DOMAIN_RUNNING: 'running', libvirt.VIR_DOMAIN_BLOCKED: 'running',
                 libvirt.VIR_DOMAIN_SHUTDOWN: 'running', libvirt.VIR_DOMAIN_PAUSED: 'paused',
                 libvirt.VIR_DOMAIN_PMSUSPENDED: 'suspended', libvirt.VIR_DOMAIN_CRASHED: 'crashed',
                 libvirt.VIR_DOMAIN_SHUTOFF: 'stopped'}.get(code, 'nostate')
        if power == 'stopped' and domain.hasManagedSaveImage():
            power = 'suspended'
        elif power == 'stopped' and reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED:
            power = 'crashed'
        ports, volumes, _names = definition.devices(domain.XMLDesc())
        halted = (code, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
        return base.Found('running' if halted else power, frozenset(ports), frozenset(volumes), halted)

    # Disks and domain

    def build(self, instance, record):
        folder = self._folder(instance.uuid)
        if instance.source is not None and not record.built:
            transfer.fetch(instance.source, folder)
            folder.grow(instance.spec)
        folder.build(instance.spec, bool(instance.spec.rescue))

    def define(self, instance, record):
        self._domain(instance.uuid)
        folder = self._folder(instance.uuid)
        spec = instance.spec
        rescued = spec.rescue is not None
        missing = folder.missing(spec, rescued)
        if missing:
            raise base.Fault('disk-missing', f'The host has lost a disk of the instance ({", ".join(missing)}).')
        xml = definition.build(spec, folder.disks(spec, rescued), self.platform, self.host, folder.console_log)
        self.connection.get().defineXML(xml)

    def remove(self, uuid):
        domain = self._domain(uuid)
        if domain is not None:
            _quietly(domain.destroy, libvirt.VIR_ERR_OPERATION_INVALID)
            _quietly(lambda: domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA))
        self._folder(uuid).remove()

    # Power

    def power_on(self, instance, record):
        domain = self._have(instance.uuid)
        if domain.isActive():
            return
        for port in instance.spec.ports:
            # The network agent makes the tap when it has wired the port, and again after the host was booted.
            if not os.path.exists(f'/sys/class/net/{port.tap}'):
                raise base.Fault('tap-missing', f'The port {port.id} is not wired on this host yet.')
        if not domain.hasManagedSaveImage():
            self.define(instance, record)
        transfer.withdraw(self._folder(instance.uuid))
        with self.secrets.opened(instance.spec.volumes):
            domain.create()

    def power_off(self, instance, timeout):
        domain = self._domain(instance.uuid)
        if domain is None or not domain.isActive():
            return
        if timeout > 0 and domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            self._ask_down(domain, timeout)
        _quietly(domain.destroy, libvirt.VIR_ERR_OPERATION_INVALID)

    def _ask_down(self, domain, timeout):
        """Ask the guest to shut down until it does or the time is over. True if it did."""
        left = timeout
        while left > 0:
            _quietly(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
                     libvirt.VIR_ERR_OPERATION_INVALID)
            # A guest that is still booting overhears the button: press it again after a while.
            step = min(left, 10)
            if self.connection.wait(lambda: not domain.isActive(), step):
                return True
            if self.connection.closed:
                raise base.Fault('stopping', 'The agent is being stopped.')
            left -= step
        return False

    def pause(self, instance):
        self._have(instance.uuid).suspend()

    def unpause(self, instance):
        devices.resume(self.connection, self._have(instance.uuid))

    def suspend(self, instance):
        self._have(instance.uuid).managedSave()

    def forget_suspended(self, instance):
        domain = self._have(instance.uuid)
        if domain.hasManagedSaveImage():
            domain.managedSaveRemove()

    # Devices

    def plug(self, instance, record, ports, volumes):
        domain = self._have(instance.uuid)
        if domain.isActive():
            devices.plug(domain, instance.spec, ports, volumes, self.platform, self.secrets)
        if not domain.hasManagedSaveImage():
            self.define(instance, record)

    def unplug(self, instance, record, ports, volumes):
        domain = self._have(instance.uuid)
        if domain.isActive():
            devices.unplug(self.connection, domain, ports, volumes)
        if not domain.hasManagedSaveImage():
            self.define(instance, record)

    def swap(self, instance, record, volume):
        domain = self._have(instance.uuid)
        if not domain.isActive():
            raise base.Fault('swap', 'Only a guest that runs can get another volume in the place of one.', final=True)
        devices.swap(self.connection, domain, volume, self.platform, self.secrets)

    # Operations

    def reboot(self, instance, record, soft):
        domain = self._have(instance.uuid)
        if soft and domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            self._ask_down(domain, min(SOFT_REBOOT_SECONDS, instance.stop_timeout))
        _quietly(domain.destroy, libvirt.VIR_ERR_OPERATION_INVALID)
        self.forget_suspended(instance)
        self.power_on(instance, record)
        return {}

    def rebuild(self, instance, record, preserve_ephemeral):
        self.power_off(instance, 0)
        if self._domain(instance.uuid) is not None:
            self.forget_suspended(instance)
        folder = self._folder(instance.uuid)
        folder.rebuild(preserve_ephemeral)
        folder.build(instance.spec, bool(instance.spec.rescue))
        self.define(instance, record)
        return {}

    def snapshot(self, instance, record, image_id):
        folder = self._folder(instance.uuid)
        domain = self._domain(instance.uuid)
        hw = definition.properties(instance.spec)
        quiesce = (definition.truth(hw.get('os_require_quiesce')) and definition.truth(hw.get('hw_qemu_guest_agent'))
                   and domain is not None and domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING)
        try:
            path = snapshot.take(self.connection, domain, folder, quiesce)
            size = os.path.getsize(path)
            with open(path, 'rb') as file:
                self.images.upload(image_id, file, size, 'qcow2')
            return {'size': size, 'disk_format': 'qcow2'}
        finally:
            snapshot.clean(domain, folder)

    def resize(self, instance, record, number):
        folder = self._folder(instance.uuid)
        self.forget_suspended(instance)
        folder.keep(number)
        try:
            folder.grow(instance.spec)
        except base.Fault:
            folder.restore_kept()
            raise
        self.define(instance, record)
        return {}

    def resize_confirm(self, instance, record):
        self._folder(instance.uuid).drop_kept()
        return {}

    def resize_revert(self, instance, record):
        self.forget_suspended(instance)
        self._folder(instance.uuid).restore_kept()
        self.define(instance, record)
        return {}

    def migrate_out(self, instance, record, token_sha256):
        disks = transfer.offer(self._folder(instance.uuid), token_sha256)
        return {'url': f'{self.door.url}/disks/{instance.uuid}', 'disks': disks}

    def rescue_ended(self, instance):
        self._folder(instance.uuid).forget('rescue.qcow2')

    def extend_volume(self, instance, volume_id, size):
        domain = self._domain(instance.uuid)
        volume = next((volume for volume in instance.spec.volumes if volume.id == volume_id), None)
        if domain is not None and volume is not None and domain.isActive():
            devices.grow(self.connection, domain, volume, size)
        return {}

    def move_volume(self, instance, volume):
        domain = self._have(instance.uuid)
        if not domain.isActive():
            raise base.Fault('swap', 'Only a disk of a guest that runs can be moved. Start it, or detach the volume.', final=True)
        devices.move(self.connection, domain, volume, self.platform, self.secrets)
        return {}

    def nmi(self, instance):
        self._have(instance.uuid).injectNMI()
        return {}

    def set_password(self, instance, user, password):
        domain = self._have(instance.uuid)
        try:
            domain.setUserPassword(user, password)
        except libvirt.libvirtError as error:
            LOG.info('No password could be set in %s: error %s', instance.uuid, error.get_error_code())
            raise base.Fault('no-guest-agent', 'The guest runs no agent that could set a password.', final=True)
        return {}

    # Questions

    def console_output(self, uuid, length):
        return console.tail(self.connection.get(), self._folder(uuid).console_log, length).decode(errors='replace')

    def console_address(self, uuid, kind):
        domain = self._domain(uuid)
        if domain is None or not domain.isActive():
            return None
        if kind == 'serial':
            path = f'/serial/{self.tickets.give(uuid)}'
            return state.ConsoleAddress(self.conf.agent.host_ip, self.door.port, path)
        found = definition.vnc(domain.XMLDesc())
        if found is None or kind != 'vnc':
            return None
        address, port = found
        if address in ('0.0.0.0', '::'):
            address = self.conf.agent.host_ip
        return state.ConsoleAddress(address, port)

    def _serial(self, ticket, caller):
        """Serve a serial console to a socket. False if the ticket is not good."""
        uuid = self.tickets.take(ticket)
        if uuid is None:
            return False
        stream = self.connection.get().newStream()
        self._have(uuid).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        console.relay(caller, stream)
        return True

    def diagnostics(self, uuid):
        drive = os.path.exists(self._folder(uuid).file('config.iso'))
        return devices.diagnostics(self._have(uuid), self.platform.kind, drive)


def _quietly(function, *codes):
    """Call libvirt; an error that says that it is so already, or that the domain is gone, is none."""
    try:
        function()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (*codes, libvirt.VIR_ERR_NO_DOMAIN):
            raise


def _shared_folder(path):
    """A folder whose files QEMU's user may use by their group. One that is there keeps its group and mode."""
    if os.path.isdir(path):
        return
    os.makedirs(path)
    try:
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    except (KeyError, PermissionError):
        LOG.warning('%s could not be given to the group %s: guests run only if QEMU may read it otherwise', path, GROUP)
    os.chmod(path, MODE)
