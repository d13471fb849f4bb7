"""Steps that several sagas have: moving the ports to another host and waiting until they are wired there."""
from kodiak.common.saga import Wait
from kodiak.compute import ports, store
from kodiak.compute.sagas import common

PORT_LOOK = 3


def merge_active(networks, entries):
    """``networks`` with ``active`` taken from ``entries``."""
    active = {port['id'] for port in entries if port['active']}
    return [{**port, 'active': port['active'] or port['id'] in active} for port in networks]


def bind(work, host):
    """Bind every port of the server to a host (none, if empty). """
    row = common.row_of(work)
    if not row['networks']:
        return
    entries = ports.move(work.app.clients.network, row, host)
    common.later(work, lambda connection, row: store.save(connection, row, networks=entries))
    work.data.pop('looked', None)


def second_look(work):
    """False at the first look of a step that waits: the network has been asked just now, and says by itself when it is done."""
    looked, work.data['looked'] = work.data.get('looked'), True
    return bool(looked)


def wire(work):
    """Wait until the network has wired the ports, so that a guest never runs unfiltered."""
    row = common.row_of(work)
    waiting = [port['id'] for port in row['networks'] if not port['active']]
    if waiting and second_look(work):
        entries = ports.wired(work.app.clients.network, row)
        if entries != row['networks']:
            common.alter(work, lambda connection, row: store.save(
                connection, row, networks=merge_active(row['networks'], entries)))
        waiting = [port['id'] for port in entries if not port['active']]
    if waiting:
        raise Wait(PORT_LOOK, f'the network to wire port {", ".join(waiting)}')
    return row
