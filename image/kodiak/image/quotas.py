"""How much a project may have: sizes in MiB, numbers of images; from the configuration, or from identity's unified limits.

There are no counters: usage is counted from the rows, under a lock of the project, in the transaction that uses it.
"""
import logging
import threading
import time

import sqlalchemy as sa

from kodiak.common import errors, quota

from .models import blobs, images

LOG = logging.getLogger(__name__)
MIB = 1 << 20
SIZE, STAGE, COUNT, UPLOADING = 'image_size_total', 'image_stage_total', 'image_count_total', 'image_count_uploading'
RESOURCES = (SIZE, STAGE, COUNT, UPLOADING)
#: Seconds that limits read from identity are used.
FRESH = 60
UNLIMITED = quota.UNLIMITED


class Limits:
    """The limits of projects.

    :param conf: the service's configuration. :param clients: for identity, where ``[limits] unified`` is set.
    """

    def __init__(self, conf, clients):
        self.conf = conf
        self.clients = clients
        self._lock = threading.Lock()
        self._service = None
        self._known = {}

    def of(self, project_id):
        """``{resource: limit}`` of a project; -1 for none."""
        found = dict.fromkeys(RESOURCES, UNLIMITED)
        found.update({name: int(value) for name, value in self.conf.limits.project.items() if name in RESOURCES})
        if self.conf.limits.unified:
            found.update(self._unified(project_id))
        return found

    def _unified(self, project_id):
        until, known = self._known.get(project_id, (0, {}))
        if time.monotonic() < until:
            return known
        try:
            known = self._ask(project_id)
        except errors.Error as error:
            # What was known before, or the configuration, holds until identity answers again.
            LOG.warning('The limits of project %s could not be read from identity: %s', project_id, error.message)
        with self._lock:
            if len(self._known) > 10000:
                self._known.clear()
            self._known[project_id] = (time.monotonic() + FRESH, known)
        return known

    def _ask(self, project_id):
        identity = self.clients.identity
        if self._service is None:
            services = identity.get('/v3/services', params={'type': 'image'})['services']
            if not services:
                raise errors.NotFound('identity knows no service of the type image')
            self._service = services[0]['id']
        registered = identity.get('/v3/registered_limits', params={'service_id': self._service})['registered_limits']
        own = identity.get('/v3/limits', params={'service_id': self._service, 'project_id': project_id})['limits']
        found = {one['resource_name']: one['default_limit'] for one in registered}
        found.update({one['resource_name']: one['resource_limit'] for one in own})
        return {name: limit for name, limit in found.items() if name in RESOURCES}


def used(connection, project_id, resources=RESOURCES, besides=None):
    """``{resource: usage}``; sizes in bytes. ``besides``: the id of an image whose data does not count."""
    found = {}
    mine = images.c.owner == project_id
    if SIZE in resources:
        found[SIZE] = _sum(connection, images.c.size, sa.and_(mine, images.c.id != (besides or '')))
    if STAGE in resources:
        staged = sa.and_(blobs.c.state == 'staged', blobs.c.image_id.in_(sa.select(images.c.id).where(mine)))
        found[STAGE] = _sum(connection, blobs.c.size, staged)
    if COUNT in resources:
        found[COUNT] = _count(connection, mine)
    if UPLOADING in resources:
        found[UPLOADING] = _count(connection, sa.and_(mine, images.c.status.in_(('saving', 'uploading', 'importing'))))
    return found


def _sum(connection, column, condition):
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(condition)).scalar())


def _count(connection, condition):
    return connection.execute(sa.select(sa.func.count()).select_from(images).where(condition)).scalar()


def _bounds(limits, resources):
    """The limits of some resources that are limits, in the units of :func:`used`."""
    return {name: limits[name] * MIB if name in (SIZE, STAGE) else limits[name]
            for name in resources if limits[name] != UNLIMITED}


def claim(connection, limits, project_id, wanted, besides=None):
    """``RequestTooLarge`` where a project would have more than it may; in the transaction that then takes it.

    :param limits: of :meth:`Limits.of`. :param wanted: ``{resource: how much more}``; sizes in bytes.
    """
    bounds = _bounds(limits, wanted)
    if not bounds:
        return
    quota.lock(connection, project_id)
    now = used(connection, project_id, bounds, besides)
    for name, bound in bounds.items():
        if now[name] + wanted[name] > bound:
            raise errors.RequestTooLarge(f'Resource {name} is over limit of {limits[name]} for this project.')


def left(connection, limits, project_id, resource, besides=None):
    """Bytes that a project may still have of a size, or None for any number."""
    bounds = _bounds(limits, [resource])
    if not bounds:
        return None
    return max(0, bounds[resource] - used(connection, project_id, [resource], besides)[resource])
