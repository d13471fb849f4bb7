"""Steps that several sagas have: moving the ports to another host and waiting until they are wired there."""
import time

from kodiak.common.saga import Wait
from kodiak.compute import ports, store
from kodiak.compute.sagas import common

PORT_LOOK = 3


def merge_active(networks, entries):
    """``networks`` with ``active`` taken from ``entries``."""
    active = {port['id'] for port in entries if port['active']}
    return [{**port, 'active': port['active'] or port['id'] in active} for port in networks]


def bind(work, host):
    """Bind every port of the server to a host (none, if empty). Returns data for the saga."""
    row = common.row_of(work)
    if not row['networks']:
        return None
    entries = ports.move(work.app.clients.network, row, host)
    common.later(work, lambda connection, row: store.save(connection, row, networks=entries))
    return {'asked_ports': time.time()}


def wire(work):
    """Wait until the network has wired the ports, so that a guest never runs unfiltered."""
    row = common.row_of(work)
    waiting = [port['id'] for port in row['networks'] if not port['active']]
    if waiting and time.time() - work.data.get('asked_ports', 0) > PORT_LOOK - 1:
        entries = ports.wired(work.app.clients.network, row)
        if entries != row['networks']:
            common.alter(work, lambda connection, row: store.save(
                connection, row, networks=merge_active(row['networks'], entries)))
        waiting = [port['id'] for port in entries if not port['active']]
    if waiting:
        raise Wait(PORT_LOOK, f'the network to wire port {", ".join(waiting)}')
    return row
