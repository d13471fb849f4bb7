"""Rows that the caller can see, and the conditions that say which those are."""
import sqlalchemy as sa

from kodiak.common import db

from . import faults, models

_rbac = models.rbac_policies.c


def sees_all(ctx):
    """True for administrators, and for services of the cloud that act by themselves (compute, with the role ``service``)."""
    return ctx.is_admin or 'service' in ctx.roles


def shared_with(object_type, project_id, actions=('access_as_shared',)):
    """The ids of what others share with a project, as a sub-select."""
    return sa.select(_rbac.object_id).where(_rbac.object_type == object_type, _rbac.target_tenant.in_(('*', project_id)),
                                            _rbac.action.in_(actions))


def share(unit, object_type, object_id, project_id, action='access_as_shared', target='*'):
    """Let others use something, as an RBAC policy of its owner, unless there is one already."""
    if unit.conn.execute(sa.select(_rbac.id).where(
            _rbac.object_type == object_type, _rbac.object_id == object_id, _rbac.action == action,
            _rbac.target_tenant == target)).first() is None:
        unit.insert(models.rbac_policies, {'id': db.new_id(), 'project_id': project_id, 'object_type': object_type,
                                           'object_id': object_id, 'action': action, 'target_tenant': target})


def unshare(unit, object_type, object_id, project_id, action='access_as_shared', target='*'):
    """Take that back."""
    unit.delete(models.rbac_policies, _rbac.object_type == object_type, _rbac.object_id == object_id, _rbac.action == action,
                _rbac.target_tenant == target)


def networks_of(project_id):
    """The ids of the networks that a project owns, as a sub-select."""
    return sa.select(models.networks.c.id).where(models.networks.c.project_id == project_id)


def usable_networks(project_id):
    """Condition: networks that a project owns, that are shared with it, or that are external for it."""
    networks = models.networks.c
    return sa.or_(networks.project_id == project_id,
                  networks.id.in_(shared_with('network', project_id, ('access_as_shared', 'access_as_external'))))


def usable_subnets(project_id):
    """Condition: subnets that a project owns or that lie on networks shared with it."""
    subnets = models.subnets.c
    return sa.or_(subnets.project_id == project_id, subnets.network_id.in_(shared_with('network', project_id)),
                  subnets.network_id.in_(networks_of(project_id)))


def usable_ports(project_id):
    """Condition: ports that a project owns or that lie on its networks."""
    ports = models.ports.c
    return sa.or_(ports.project_id == project_id, ports.network_id.in_(networks_of(project_id)))


def usable(object_type, table):
    """Function of a project: condition that a row of ``table`` is its own or is shared with it."""
    return lambda project_id: sa.or_(table.c.project_id == project_id, table.c.id.in_(shared_with(object_type, project_id)))


def own(table):
    """Function of a project: condition that a row of ``table`` is its own."""
    return lambda project_id: table.c.project_id == project_id


#: table name -> (what it is called, condition)
_RULES = {
    'networks': ('Network', usable_networks), 'subnets': ('Subnet', usable_subnets), 'ports': ('Port', usable_ports),
    'security_groups': ('Security group', usable('security_group', models.security_groups)),
    'address_groups': ('Address Group', usable('address_group', models.address_groups)),
    'address_scopes': ('Address scope', usable('address_scope', models.address_scopes)),
    'subnetpools': ('Subnet pool', usable('subnetpool', models.subnetpools)),
    'qos_policies': ('QoS policy', usable('qos_policy', models.qos_policies)),
    'routers': ('Router', own(models.routers)), 'floatingips': ('Floating IP', own(models.floatingips)),
}
KINDS = {'Security group': 'SecurityGroupNotFound', 'Subnet pool': 'SubnetPoolNotFound', 'Floating IP': 'FloatingIPNotFound',
         'QoS policy': 'QosPolicyNotFound', 'Address Group': 'AddressGroupNotFound', 'Address scope': 'AddressScopeNotFound'}


def row(unit, table, id, lock=False):
    """A row that the caller can see.

    :param lock: keep others from changing it until the end of the transaction.
    :raises NotFound: under the resource's own name.
    """
    what, condition = _RULES[table.name]
    query = sa.select(table).where(table.c.id == id)
    if not sees_all(unit.ctx):
        query = query.where(condition(unit.ctx.project_id))
    found = unit.one(query.with_for_update() if lock else query)
    if found is None:
        raise faults.not_found(what, id, KINDS.get(what))
    return found


def network(unit, id, lock=False):
    """A network that the caller can use."""
    return row(unit, models.networks, id, lock)


def subnet(unit, id):
    """A subnet that the caller can see."""
    return row(unit, models.subnets, id)


def port(unit, id, lock=False):
    """A port that the caller can see."""
    return row(unit, models.ports, id, lock)


def router(unit, id, lock=True):
    """A router of the caller; locked, because what may be plugged into it depends on what is."""
    return row(unit, models.routers, id, lock)
