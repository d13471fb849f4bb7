"""An image from a root disk, whether the guest runs or not.

A running guest's disk is copied by a mirror job: QEMU writes what differs from the base image into a second
overlay and, from when that is complete, every further write too; ending the job then leaves the state of one
moment. The guest's own disk is never touched, so an agent that dies in between leaves nothing but a job to cancel.
"""
import logging
import os
import xml.etree.ElementTree as ET

import libvirt

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import devices, qemu_img
from kodiak.compute.drivers.libvirt import domain as definition

LOG = logging.getLogger(__name__)
COPY, FLAT = 'snapshot-copy.qcow2', 'snapshot.qcow2'
PATIENCE = 6 * 3600


def take(connection, domain, folder, quiesce=False):
    """Write the state of the root disk into one flat qcow2 file and return its path.

    :param domain: the libvirt domain; its disk is mirrored if it is active and read as it lies otherwise.
    :param quiesce: freeze the file systems through the guest's agent for the moment of the copy.
    """
    root = folder.file('root.qcow2')
    folder.forget(COPY, FLAT)
    source = root
    if domain is not None and domain.isActive():
        source = folder.file(COPY)
        _mirror(connection, domain, root, source, quiesce)
    flat = folder.file(FLAT)
    qemu_img.run('convert', '-f', 'qcow2', '-O', 'qcow2', source, flat, timeout=PATIENCE)
    folder.forget(COPY)
    return flat


def clean(domain, folder):
    """Remove what a snapshot that was cut short left: its job and its files."""
    if domain is not None and domain.isActive():
        try:
            target = devices.root_target(domain, folder.file('root.qcow2'))
            if domain.blockJobInfo(target):
                domain.blockJobAbort(target)
        except (base.Fault, libvirt.libvirtError) as error:
            LOG.debug('no job to cancel: %s', error)
    folder.forget(COPY, FLAT)


def _mirror(connection, domain, root, copy, quiesce):
    target = devices.root_target(domain, root)
    if domain.blockJobInfo(target):
        domain.blockJobAbort(target)
    about = qemu_img.info(root, 'qcow2', running=True)
    flags = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    if 'full-backing-filename' in about:
        qemu_img.create_overlay(copy, about['full-backing-filename'], about['backing-filename-format'],
                                about['virtual-size'])
        flags |= libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW
    else:
        qemu_img.create(copy, about['virtual-size'])
    os.chmod(copy, 0o660)
    disk = ET.Element('disk', type='file')
    definition.child(definition.child(disk, 'source', file=copy), 'seclabel', model='dac', relabel='no')
    definition.child(disk, 'driver', name='qemu', type='qcow2')
    domain.blockCopy(target, ET.tostring(disk, encoding='unicode'), {}, flags)
    try:
        if not connection.wait(lambda: devices.mirror_ready(domain, target), PATIENCE):
            raise base.Fault('snapshot', 'The copy of the disk was not ready in time.')
        if quiesce:
            domain.fsFreeze()
    finally:
        # At the end of a complete mirror this stops at a moment; of an incomplete one it cancels.
        domain.blockJobAbort(target)
        if quiesce:
            try:
                domain.fsThaw()
            except libvirt.libvirtError:
                LOG.warning('The file systems of %s could not be thawed', domain.name())
