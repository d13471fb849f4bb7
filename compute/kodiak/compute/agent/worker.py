"""Brings one instance to what it should be: the steps of :mod:`~kodiak.compute.agent.plan`, done by a driver."""
import dataclasses
import logging

from kodiak.compute.agent import plan, state
from kodiak.compute.drivers import base

LOG = logging.getLogger(__name__)
STEPS = 30      # more than any instance needs; a plan that does not end is a defect


class Worker:
    """Works on the instances of one host, on one instance in one thread at a time.

    :param driver: the host's :class:`base.Driver`.
    :param say: ``say(report)`` is called with a ``state.Report`` when the work on an instance is over for now.
    """

    def __init__(self, driver, say):
        self.driver = driver
        self.say = say
        self._attempts = {}     # uuid -> how often in a row it failed

    def bring(self, uuid, instance):
        """Make the instance what it should be, and report.

        :param instance: a ``state.Instance``, or None where nothing should be here (nothing is reported then).
        :returns: True if all is done.
        :raises base.Fault: why not; it has been reported, with ``final`` where another try would not help.
        """
        try:
            self._steps(uuid, instance)
        except base.Fault as fault:
            self._report(instance, fault)
            raise
        except Exception as error:
            LOG.warning('%s: %s: %s', uuid, type(error).__name__, error, exc_info=True)
            fault = self.driver.explain(error)
            self._report(instance, fault)
            raise fault from error
        self._report(instance)
        return True

    def _steps(self, uuid, instance):
        boot_id = self.driver.boot_id()
        for _ in range(STEPS):
            record, found = self.driver.load(uuid), self.driver.look(uuid)
            if instance is not None and record is not None:
                record = self._forget(instance, record)
                record = self._started(instance, record, found, boot_id)
            step = plan.next_step(instance, record, found, boot_id)
            if step is None:
                return
            if step.name != 'remove' or record is not None or found is not None:
                LOG.info('%s: %s', uuid, step.args[0].kind if step.name == 'operate' else step.name)
            if step.name == 'remove':
                self.driver.remove(uuid)
                return
            if step.name == 'operate':
                self._operate(instance, record, *step.args)
            else:
                getattr(self, '_' + step.name)(self._effective(instance, record), record, *step.args)
        raise base.Fault('agent', 'The work on the instance does not come to an end.')

    def _forget(self, instance, record):
        """Drop the outcomes that the conductor has taken note of."""
        listed = {operation.number for operation in instance.operations}
        left = [outcome for outcome in record.outcomes if outcome['number'] in listed]
        if len(left) != len(record.outcomes):
            record = dataclasses.replace(record, outcomes=left)
            self.driver.save(record)
        return record

    def _started(self, instance, record, found, boot_id):
        """Note that a guest runs which should: from now on, its going down is its own doing. A guest that should be
        down has not been started for whatever is wished next."""
        started = record.started
        if instance.desired not in ('running', 'paused'):
            started = None
        elif found is not None and found.power == 'running':
            started = {'asked': instance.desired_generation, 'boot': boot_id}
        if started != record.started:
            record = dataclasses.replace(record, started=started)
            self.driver.save(record)
        return record

    @staticmethod
    def _effective(instance, record):
        """The instance with the flavor and image that its disks were made for: others come by operations."""
        if record is None or not record.built:
            return instance
        spec = dataclasses.replace(
            instance.spec, flavor=state.Flavor.load(record.flavor),
            image=state.Image.load(record.image) if record.image else None)
        return dataclasses.replace(instance, spec=spec)

    def _report(self, instance, fault=None):
        if instance is None:
            return
        try:
            record, found = self.driver.load(instance.uuid), self.driver.look(instance.uuid)
        except Exception:
            LOG.warning('%s cannot be looked at', instance.uuid, exc_info=True)
            return
        if fault is not None:
            attempts = self._attempts[instance.uuid] = self._attempts.get(instance.uuid, 0) + 1
            fault = state.Fault(fault.code, fault.message, fault.final, attempts)
        else:
            self._attempts.pop(instance.uuid, None)
        self.say(plan.report(instance, record, found, self.driver.host, self.driver.boot_id(), fault))

    # Steps: each takes the instance and its record first

    def _build(self, instance, record):
        """Disks and domain for the first time on this host."""
        spec = instance.spec
        if record is None:
            record = base.Record(instance.uuid)
            self.driver.save(record)
        self.driver.build(instance, record)
        record = dataclasses.replace(
            record, flavor=state.dump(spec.flavor), image=state.dump(spec.image) if spec.image else None,
            domain_name=spec.domain_name, rescued=spec.rescue is not None)
        self.driver.define(instance, record)
        self.driver.save(dataclasses.replace(record, built=True))

    def _define(self, instance, record):
        """The domain is lost and the disks are here."""
        self.driver.define(instance, record)

    def _power_on(self, instance, record):
        self.driver.power_on(instance, record)

    def _power_off(self, instance, record):
        self.driver.power_off(instance, instance.stop_timeout)

    def _pause(self, instance, record):
        self.driver.pause(instance)

    def _unpause(self, instance, record):
        self.driver.unpause(instance)

    def _suspend(self, instance, record):
        self.driver.suspend(instance)

    def _forget_suspended(self, instance, record):
        self.driver.forget_suspended(instance)

    def _plug(self, instance, record, ports, volumes):
        self.driver.plug(instance, record, [port for port in instance.spec.ports if port.id in ports],
                         [volume for volume in instance.spec.volumes if volume.id in volumes])

    def _unplug(self, instance, record, ports, volumes):
        self.driver.unplug(instance, record, sorted(ports), sorted(volumes))

    def _swap(self, instance, record, volume):
        """Copy what is on the volume that this one replaces, and let the guest go on with this one."""
        self.driver.swap(instance, record, volume)

    def _rescue(self, instance, record):
        """Stop the guest and let it boot from the rescue image."""
        self._other_definition(instance, record, True)

    def _unrescue(self, instance, record):
        """Stop the rescue system and let the guest boot from its own disk."""
        self._other_definition(instance, record, False)
        self.driver.rescue_ended(instance)

    def _other_definition(self, instance, record, rescued):
        self.driver.power_off(instance, instance.stop_timeout if rescued else 0)
        if self.driver.look(instance.uuid).power == 'suspended':
            self.driver.forget_suspended(instance)
        self.driver.build(instance, record)
        self.driver.define(instance, record)
        self.driver.save(dataclasses.replace(record, rescued=rescued, started=None))

    # Operations: each is given the instance as the conductor describes it, and returns a result and changes of the record

    def _operate(self, wanted, record, operation):
        """Do an operation once, and note how it ended. A fault that is not final leaves it to be tried again."""
        outcome, changes = state.Outcome(operation.number), {}
        try:
            handler = getattr(self, '_do_' + operation.kind, None)
            if handler is None:
                raise base.Fault('not-supported', f'This host cannot do {operation.kind!r}.', final=True)
            outcome.result, changes = handler(wanted, self._effective(wanted, record), record, operation)
        except base.Fault as fault:
            if not fault.final:
                raise
            LOG.info('%s: %s failed: %s', wanted.uuid, operation.kind, fault)
            outcome.fault = state.Fault(fault.code, fault.message, True)
        self.driver.save(dataclasses.replace(
            record, last_operation=operation.number, outcomes=[*record.outcomes, state.dump(outcome)], **changes))

    def _do_reboot(self, wanted, instance, record, operation):
        if instance.desired not in ('running', 'paused'):
            return {}, {}
        return self.driver.reboot(instance, record, operation.args.get('type') == 'SOFT'), {'started': None}

    def _do_rebuild(self, wanted, instance, record, operation):
        image = wanted.spec.image
        instance = dataclasses.replace(instance, spec=dataclasses.replace(instance.spec, image=image))
        result = self.driver.rebuild(instance, record, bool(operation.args.get('preserve_ephemeral')))
        return result, {'image': state.dump(image) if image else None, 'started': None}

    def _do_snapshot(self, wanted, instance, record, operation):
        return self.driver.snapshot(instance, record, operation.args['image_id']), {}

    def _do_resize(self, wanted, instance, record, operation):
        self.driver.power_off(instance, instance.stop_timeout)
        result = self.driver.resize(self._sized(wanted, instance), record, operation.number)
        return result, {'flavor': state.dump(wanted.spec.flavor), 'started': None}

    def _do_resize_confirm(self, wanted, instance, record, operation):
        return self.driver.resize_confirm(instance, record), {}

    def _do_resize_revert(self, wanted, instance, record, operation):
        self.driver.power_off(instance, instance.stop_timeout)
        result = self.driver.resize_revert(self._sized(wanted, instance), record)
        return result, {'flavor': state.dump(wanted.spec.flavor), 'started': None}

    @staticmethod
    def _sized(wanted, instance):
        return dataclasses.replace(instance, spec=dataclasses.replace(instance.spec, flavor=wanted.spec.flavor))

    def _do_migrate_out(self, wanted, instance, record, operation):
        self.driver.power_off(instance, instance.stop_timeout)
        return self.driver.migrate_out(instance, record, operation.args['token_sha256']), {'started': None}

    def _do_extend_volume(self, wanted, instance, record, operation):
        return self.driver.extend_volume(instance, operation.args['volume_id'], operation.args['size']), {}

    def _do_move_volume(self, wanted, instance, record, operation):
        args = operation.args
        volume = next((volume for volume in instance.spec.volumes if volume.id == args['volume_id']), None)
        if volume is None:
            raise base.Fault('swap', 'The guest does not have the volume.', final=True)
        volume = dataclasses.replace(volume, attachment_id=args['attachment_id'], connection=args['connection'])
        return self.driver.move_volume(instance, volume), {}

    def _do_reset_network(self, wanted, instance, record, operation):
        return self.driver.reset_network(instance, record), {}

    def _do_nmi(self, wanted, instance, record, operation):
        return self.driver.nmi(instance), {}

    def _do_set_password(self, wanted, instance, record, operation):
        return self.driver.set_password(instance, operation.args['user'], operation.args['password']), {}
