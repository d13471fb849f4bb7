"""Notifications: what happens to servers, told on the message bus (``[notifications] topics``) as consumers of Nova's know it.

``compute.instance.<what>.start`` and ``.end`` or ``.error`` enclose each action; ``compute.instance.update`` tells a change of
state. Each is written with what it tells, in one transaction.
"""
from kodiak.common import outbox

#: Actions, as the record has them, by the names that consumers know.
NAMES = {
    'delete': 'delete', 'forceDelete': 'delete', 'start': 'power_on', 'stop': 'power_off', 'resize': 'resize', 'migrate': 'resize',
    'confirmResize': 'resize.confirm', 'revertResize': 'resize.revert', 'createImage': 'snapshot', 'createBackup': 'snapshot',
    'shelveOffload': 'shelve_offload', 'attach_volume': 'volume.attach', 'detach_volume': 'volume.detach',
    'swap_volume': 'volume.swap', 'extend_volume': 'volume.extend', 'attach_interface': 'interface.attach',
    'detach_interface': 'interface.detach', 'changePassword': 'password.set',
}


def _moment(value):
    return value.isoformat() if value else ''


def payload(row):
    """What is told of a server, in every notification."""
    flavor = row['flavor']
    return {
        'tenant_id': row['project_id'], 'user_id': row['user_id'], 'instance_id': row['uuid'], 'display_name': row['name'],
        'reservation_id': row['reservation_id'], 'hostname': row['hostname'], 'host': row['host'], 'node': row['node'],
        'availability_zone': row['zone'], 'instance_type': flavor['name'], 'instance_flavor_id': flavor['id'],
        'memory_mb': flavor['ram'], 'vcpus': flavor['vcpus'], 'root_gb': flavor['root'], 'ephemeral_gb': flavor['ephemeral'],
        'disk_gb': flavor['root'] + flavor['ephemeral'], 'created_at': _moment(row['created_at']),
        'launched_at': _moment(row['launched_at']), 'terminated_at': _moment(row['terminated_at']),
        'deleted_at': _moment(row['deleted_at']) if row['deleted'] else '', 'state': row['vm_state'],
        'state_description': row['task_state'] or '', 'progress': row['progress'], 'metadata': row['metadata'],
        'image_ref_url': f'/images/{row["image_ref"]}' if row['image_ref'] else '',
        'image_meta': {'base_image_ref': row['image_ref'] or '', 'min_disk': str(flavor['root'])},
        'access_ip_v4': row['access_ip_v4'], 'access_ip_v6': row['access_ip_v6'],
        'fixed_ips': [{'address': fixed['address'], 'version': fixed['version'], 'label': port['network_name'],
                       'vif_mac': port['mac'], 'type': 'fixed', 'floating_ips': []}
                      for port in row['networks'] for fixed in port['fixed_ips']]}


def action(connection, row, name, phase, context, message=None):
    """Tell the begin (``start``), the ``end`` or the ``error`` of an action."""
    outbox.notify(connection, f'compute.instance.{NAMES.get(name, name)}.{phase}',
                  {**payload(row), **({'message': message} if message else {})}, context, row['uuid'])


def changed(connection, row, before, context=None):
    """Tell a change of state. :param before: ``(vm_state, task_state)``."""
    states = {'old_state': before[0], 'old_task_state': before[1], 'new_task_state': row['task_state']}
    outbox.notify(connection, 'compute.instance.update', {**payload(row), **states}, context, row['uuid'])
