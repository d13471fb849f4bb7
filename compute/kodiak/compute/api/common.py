"""What the modules of the compute API share."""
import re

import sqlalchemy as sa

from kodiak.common import db, errors
from kodiak.common.api import listing, schema
from kodiak.compute import states, store
from kodiak.compute.models import flavor_projects, flavors, servers

BOOL = {'type': ['boolean', 'string'], 'enum': [True, False, 'True', 'true', 'TRUE', '1', 'on', 'ON', 'yes', 'YES', 'False',
                                                'false',
                                                'FALSE', '0', 'off', 'OFF', 'no', 'NO']}
TRUE = {True, 'True', 'true', 'TRUE', '1', 'on', 'ON', 'yes', 'YES'}
COUNT = {'type': ['integer', 'string'], 'pattern': '^[0-9]+$', 'minimum': 1}
METADATA = {'type': 'object', 'additionalProperties': False,
            'patternProperties': {'^[a-zA-Z0-9-_:. ]{1,255}$': {'type': 'string', 'maxLength': 255}}}
MAX_PAGE = 1000
_uuid = re.compile(r'^[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$')


def is_uuid(text):
    """True for anything that could be a UUID."""
    return isinstance(text, str) and _uuid.match(text) is not None


def not_found(kind, name):
    """The usual sentence."""
    return errors.NotFound(f'{kind} {name} could not be found.')


def load_server(req, server_id, **more):
    """The whole row of a server that the caller may know of (an endpoint's ``load``)."""
    with req.db.read() as connection:
        row = store.get(connection, server_id)
    if row is None or row['deleted'] or not (row['project_id'] == req.ctx.project_id or req.ctx.is_admin):
        raise not_found('Instance', server_id)
    return row


def load_any_server(req, server_id, **more):
    """As :func:`load_server`, deleted ones included (their actions are still shown)."""
    with req.db.read() as connection:
        row = store.get(connection, server_id)
    if row is None or not (row['project_id'] == req.ctx.project_id or req.ctx.is_admin):
        raise not_found('Instance', server_id)
    return row


def locked(connection, server_id):
    """The row of a server, locked for a change; ``NotFound`` if it was deleted meanwhile."""
    row = store.lock(connection, server_id)
    if row is None or row['deleted']:
        raise not_found('Instance', server_id)
    return row


def check(req, row, action, host=True):
    """``Conflict`` where ``action`` may not be done to the server now: its state, its task, a lock, no host.

    :param host: True where the action needs a host.
    """
    if row['locked_by'] and states.ACTIONS[action].lockable and not req.ctx.is_admin:
        raise errors.Conflict(f'Instance {row["uuid"]} is locked')
    wrong = states.allowed(action, row)
    if wrong is not None:
        raise errors.Conflict(f"Cannot '{action}' instance {row['uuid']} while it is in {wrong[0]} {wrong[1]}")
    if host and not row['host']:
        raise errors.Conflict(f'Instance {row["uuid"]} is not ready')


def find_flavor(connection, flavor_id, ctx, disabled=True):
    """The row of a flavor that the caller may use, as a dictionary; ``NotFound`` otherwise."""
    row = db.one(connection, sa.select(flavors).where(flavors.c.flavorid == str(flavor_id)))
    if row is not None and not row['is_public'] and not ctx.is_admin and connection.scalar(
            sa.select(flavor_projects.c.flavor_id).where(flavor_projects.c.flavor_id == row['id'],
                                                         flavor_projects.c.project_id == ctx.project_id)) is None:
        row = None
    if row is None:
        raise not_found('Flavor', flavor_id)
    return row


def embedded(flavor):
    """A flavor's row as servers keep it (``agent.state.Flavor``)."""
    return {'id': flavor['flavorid'], 'name': flavor['name'], 'vcpus': flavor['vcpus'], 'ram': flavor['ram'],
            'root': flavor['disk'],
            'ephemeral': flavor['ephemeral'], 'swap': flavor['swap'], 'extra_specs': flavor['extra_specs']}


def only(req, body, since=None, until=None, where='body'):
    """``BadRequest`` for fields that the request's microversion does not know.

    :param since: ``{field: first microversion}``; :param until: ``{field: last microversion}``.
    """
    for field in body:
        first, last = (since or {}).get(field), (until or {}).get(field)
        if (first and not req.at_least(*first)) or (last and req.version > last):
            raise errors.BadRequest(f"Additional properties are not allowed ('{field}' was unexpected)")


def next_link(req, name, marker):
    """``{name: [the link to the next page]}``."""
    return {name: [{'rel': 'next', 'href': listing.next_url(req, marker)}]}


def text(value, field, minimum=1, maximum=255):
    """A name as the compute API takes it: printable, neither beginning nor ending with a blank."""
    if not minimum <= len(value) <= maximum or value != value.strip() or any(not (c.isprintable()) for c in value):
        raise errors.BadRequest(f'Invalid input for field/attribute {field}. Value: {value[:80]!r}. It must be printable, of '
                                f'{minimum} to {maximum} characters, and neither begin nor end with a blank.')
    return value


def servers_on(connection, host):
    """How many servers are on a host."""
    return connection.scalar(sa.select(sa.func.count()).select_from(servers).where(
        servers.c.host == host, servers.c.deleted.is_(False)))


LINKS = schema.array(schema.obj({'rel': schema.STRING, 'href': schema.STRING, 'type': schema.STRING}))
