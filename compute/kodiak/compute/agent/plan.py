"""What to do next about one instance: a pure function of what should be, what was done, and what is.

The agent looks, asks for the next :class:`Step`, does it, and looks again, until there is none. A step that was cut
short by a crash is planned again, because nothing but the outcome counts: so each may be done twice.
"""
import dataclasses

from kodiak.compute.agent import state
from kodiak.compute.drivers import base


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to do: the name of a method of :class:`~kodiak.compute.agent.worker.Worker`, and its arguments."""

    name: str
    args: tuple = ()


def next_step(instance, record, found, boot_id):
    """The next step, or None where everything is as it should be (or only the owner can change it).
    ``remove`` is the last step of those that should not be here.

    :param instance: what should be, an ``agent.state.Instance``; None where nothing should be here.
    :param record: the :class:`base.Record` of what was done, or None.
    :param found: the :class:`base.Found` domain, or None.
    :param boot_id: that of the host now.
    """
    if instance is None or instance.desired == 'absent':
        # Always: what a crash left of a build or a removal may show neither record nor domain.
        return Step('remove')
    if record is None or not record.built:
        if instance.built:
            raise base.Fault('disk-missing', 'The host has lost the disks of the instance.', final=True)
        return Step('build')
    if any(item.kind == 'move_volume' and item.number <= record.last_operation for item in instance.operations):
        # What is known of the volume may be where it was before: a guest that was started now would go on with old data.
        return None
    operation = next((item for item in instance.operations if item.number > record.last_operation), None)
    if operation is not None:
        return Step('operate', (operation,))
    if found is None:
        return Step('define')
    if record.rescued != (instance.spec.rescue is not None):
        return Step('rescue' if instance.spec.rescue is not None else 'unrescue')
    if found.halted and instance.desired == 'running':
        # First: a guest that stands still lets go of nothing.
        return Step('unpause')
    return _devices(instance, found) or _power(instance, record, found, boot_id)


def _devices(instance, found):
    ports = {port.id for port in instance.spec.ports}
    volumes = {volume.id for volume in instance.spec.volumes}
    for volume in instance.spec.volumes:
        if volume.replaces in found.volumes and volume.id not in found.volumes:
            return Step('swap', (volume,))
    gone = (found.ports - ports, found.volumes - volumes)
    if any(gone):
        return Step('unplug', tuple(frozenset(ids) for ids in gone))
    new = (ports - found.ports, volumes - found.volumes)
    if any(new) and found.power != 'suspended':
        # A guest that lies on disk gets its new devices when it is up again.
        return Step('plug', tuple(frozenset(ids) for ids in new))
    return None


def _power(instance, record, found, boot_id):
    wanted, power = instance.desired, found.power
    if wanted == 'stopped':
        return {'running': Step('power_off'), 'paused': Step('power_off'),
                'suspended': Step('forget_suspended')}.get(power)
    if power in ('stopped', 'crashed'):
        if stopped_itself(instance, record, found, boot_id) or (wanted == 'suspended'):
            return None
        return Step('power_on')
    if wanted == 'suspended':
        return Step('suspend') if power in ('running', 'paused') else None
    if power == 'suspended':
        return Step('power_on')
    if wanted == 'paused':
        return Step('pause') if power == 'running' and not found.halted else None
    return Step('unpause') if power == 'paused' else None


def stopped_itself(instance, record, found, boot_id):
    """True if the guest is down although it should not be, and nobody asked for it to run since it was last started.

    A guest that is down because its host was booted anew is started again.
    """
    return (instance.desired in ('running', 'paused') and record is not None and found is not None
            and found.power in ('stopped', 'crashed') and record.started is not None
            and record.started == {'asked': instance.desired_generation, 'boot': boot_id})


def report(instance, record, found, host, boot_id, fault=None):
    """The :class:`state.Report` of how things stand; ``fault`` is why they are not as they should be."""
    listed = {operation.number for operation in instance.operations}
    outcomes = [state.Outcome.load(outcome) for outcome in (record.outcomes if record else ())
                if outcome['number'] in listed]
    if found is not None:
        power = found.power
    else:
        power = 'absent' if record is None else 'stopped' if record.built else 'nostate'
    return state.Report(
        uuid=instance.uuid, host=host, generation=instance.generation, power_state=power, settled=fault is None,
        built=record is not None and record.built,
        self_stopped=fault is None and stopped_itself(instance, record, found, boot_id), fault=fault,
        outcomes=outcomes, plugged=sorted(found.ports | found.volumes) if found else [])
