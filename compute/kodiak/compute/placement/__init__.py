"""Placement: inventories of hosts, claims on them, and where a claim would fit.

The compute service's scheduler calls these functions inside its own transaction, so that choosing a host and claiming it are
one step; the Placement API (``kodiak.compute.api.placement``) serves the same to everybody else.
"""
from .claims import NoCapacity, claim, consumer, of_consumer, release
from .providers import ensure_host
from .query import Group, Query
from .query import explain as _explain
from .query import hosts as _hosts

__all__ = ['Group', 'NoCapacity', 'Query', 'allocations', 'candidates', 'claim', 'consumer', 'ensure_host', 'explain', 'release']


def _group(resources, required, forbidden, member_of):
    return Group(resources={name: amount for name, amount in resources.items() if amount},
                 required=[{name} for name in required], forbidden=set(forbidden),
                 member_of=[set(uuids) for uuids in member_of or ()])


def candidates(connection, resources, required=(), forbidden=(), member_of=None, limit=None, order='free'):
    """Hosts with room for ``resources``.

    :param resources: ``{class: amount}``; :param required: traits that a host needs, :param forbidden: that it may not have;
    :param member_of: list of sets of aggregate uuids, one of each set is needed; :param limit: at most so many;
    :param order: ``free`` (whatever comes first) or ``random``.
    :returns: rows ``(id, uuid, name, summary, traits)``; ``summary`` is JSON text of ``{class: {capacity, used}}``.
    """
    return _hosts(connection, _group(resources, required, forbidden, member_of), limit, shuffle=order == 'random')


def allocations(connection, consumer_uuid):
    """``{provider uuid: {class: amount}}`` of a consumer."""
    return {uuid: entry['resources'] for uuid, entry in of_consumer(connection, consumer_uuid).items()}


def explain(connection, resources, required=(), forbidden=(), member_of=None):
    """Why :func:`candidates` finds nothing: a sentence for the owner of the refused server."""
    return _explain(connection, _group(resources, required, forbidden, member_of))
