"""The auto-allocated topology: a network, a subnet and a router that leads out, at a project's word."""
import sqlalchemy as sa

from . import faults, models, networks, routers, security, subnets

_made = models.auto_allocated
_networks = models.networks.c
_pools = models.subnetpools.c
NAME = 'auto_allocated_network'


def check(unit):
    """What the cloud must have for it: ``(external network's id, [default pool, ...])``.

    :raises Conflict: AutoAllocationFailure.
    """
    external = unit.conn.scalar(sa.select(_networks.id).where(_networks.external, _networks.is_default))
    if external is None:
        raise faults.conflict('AutoAllocationFailure', 'Deployment error: No default router:external network.')
    pools = unit.all(sa.select(models.subnetpools).where(_pools.is_default, _pools.shared))
    if not pools:
        raise faults.conflict('AutoAllocationFailure', 'Deployment error: No default subnetpools defined.')
    return external, pools


def get(unit, project_id):
    """The id of a project's network, made with all that belongs to it if there is none."""
    found = unit.one(sa.select(_made).where(_made.c.project_id == project_id))
    if found is not None:
        return found['network_id']
    external, pools = check(unit)
    security.default_group(unit, project_id)
    network_id = networks.create(unit, {'project_id': project_id, 'name': NAME})
    made = [
        subnets.create(
            unit,
            {
                'project_id': project_id,
                'network_id': network_id,
                'name': f'auto_allocated_subnet_v{pool["ip_version"]}',
                'ip_version': pool['ip_version'],
                'subnetpool_id': pool['id'],
            },
        )
        for pool in pools
    ]
    router_id = routers.create(unit, {'project_id': project_id, 'name': 'auto_allocated_router',
                                      'external_gateway_info': {'network_id': external}})
    for subnet_id in made:
        routers.add_interface(unit, {'id': router_id}, {'subnet_id': subnet_id})
    unit.insert(_made, {'project_id': project_id, 'network_id': network_id, 'router_id': router_id})
    return network_id


def delete(unit, project_id):
    """Delete what was made for a project.

    :raises NotFound: there is nothing. :raises Conflict: something is still plugged into it.
    """
    found = unit.one(sa.select(_made).where(_made.c.project_id == project_id))
    if found is None:
        raise faults.missing('AutoAllocatedTopologyNotFound', f'No auto-allocated topology for project {project_id}.')
    unit.delete(_made, _made.c.project_id == project_id)
    if found['router_id']:
        for leg in routers.legs(unit, found['router_id']):
            routers.remove_interface(unit, {'id': found['router_id']}, {'port_id': leg['id']})
        routers.delete(unit, {'id': found['router_id']})
    row = unit.one(sa.select(models.networks).where(_networks.id == found['network_id']))
    networks.delete(unit, row)
