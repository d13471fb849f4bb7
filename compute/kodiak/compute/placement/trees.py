"""Allocation candidates among trees of providers, providers that share, and granular request groups.

Everything is read in five statements; the search then runs in memory, one tree after the other, and stops at the limit.
"""
import collections
import itertools

import sqlalchemy as sa

from ..models import placement as models
from .query import SHARES

P, I, T, A = models.providers, models.inventories, models.provider_traits, models.provider_aggregates


class Provider:
    """A provider with all that the search asks about."""

    __slots__ = ('aggregates', 'id', 'inventory', 'name', 'parent_id', 'root_id', 'traits', 'uuid')

    def __init__(self, row):
        self.id, self.uuid, self.name, self.parent_id, self.root_id = row.id, row.uuid, row.name, row.parent_id, row.root_id
        self.inventory, self.traits, self.aggregates = {}, set(), set()

    def has_room(self, name, amount):
        """True if one allocation of ``amount`` of the class would fit."""
        record = self.inventory.get(name)
        return (record is not None and record.capacity - record.used >= amount and record.min_unit <= amount <= record.max_unit
                and amount % record.step_size == 0)


class Forest:
    """Every provider of the deployment, in its tree."""

    def __init__(self, connection):
        self.by_id = {row.id: Provider(row) for row in connection.execute(
            sa.select(P.c.id, P.c.uuid, P.c.name, P.c.parent_id, P.c.root_id).order_by(P.c.id))}
        for row in connection.execute(sa.select(I)):
            self.by_id[row.provider_id].inventory[row.resource_class] = row
        for provider_id, trait in connection.execute(sa.select(T.c.provider_id, T.c.trait)):
            self.by_id[provider_id].traits.add(trait)
        for provider_id, aggregate in connection.execute(sa.select(A.c.provider_id, A.c.aggregate)):
            self.by_id[provider_id].aggregates.add(aggregate)
        self.trees = collections.defaultdict(list)
        for provider in self.by_id.values():
            self.trees[provider.root_id].append(provider)
        self.sharing = [provider for provider in self.by_id.values() if SHARES in provider.traits and provider.aggregates]

    def path(self, provider):
        """The provider and everything above it, itself first."""
        found = [provider]
        while found[-1].parent_id is not None:
            found.append(self.by_id[found[-1].parent_id])
        return found


def _allowed(forest, provider, group, suffix=''):
    """True if traits, aggregates and tree let a provider take part in a group (room apart).

    The aggregates of a root are those of its whole tree for the group without a suffix only.
    """
    if provider.traits & group.forbidden:
        return False
    aggregates = provider.aggregates if suffix else provider.aggregates | forest.by_id[provider.root_id].aggregates
    if not all(aggregates & uuids for uuids in group.member_of) or group.forbidden_aggregates & aggregates:
        return False
    return not group.in_tree or any(member.uuid == group.in_tree for member in forest.trees[provider.root_id])


def _spread(forest, members, group, suffix):
    """Ways to satisfy the group without a suffix: each class from any provider, the traits from all together."""
    usable = [provider for provider in members if _allowed(forest, provider, group)]
    options = [[(name, amount, provider) for provider in usable if provider.has_room(name, amount)]
               for name, amount in group.resources.items()]
    for choice in itertools.product(*options):
        traits = set().union(*(provider.traits for _, _, provider in choice)) if choice else set()
        if all(traits & names for names in group.required):
            yield tuple((provider, name, amount) for name, amount, provider in choice)


def _single(forest, members, group, suffix):
    """Ways to satisfy a group with a suffix: everything from one provider."""
    for provider in members:
        if (_allowed(forest, provider, group, suffix) and all(provider.traits & names for names in group.required)
                and all(provider.has_room(name, amount) for name, amount in group.resources.items())):
            yield tuple((provider, name, amount) for name, amount in group.resources.items()) or ((provider, None, 0),)


def _same_subtree(forest, query, chosen):
    for suffixes in query.same_subtree:
        members = {part[0] for suffix in suffixes for part in chosen.get(suffix, ())}
        # One of them must be above (or be) all the others.
        if not any(all(top in forest.path(member) for member in members) for top in members):
            return False
    return True


def search(connection, query, nested=True):
    """Candidates of a :class:`~.query.Query`.

    :param nested: False before microversion 1.29: what several providers of one tree would give together is left out.
    :returns: ``(forest, [({provider id: {class: amount}}, {suffix: [provider, ...]}), ...])``.
    """
    forest = Forest(connection)
    found, seen = [], set()
    for root_id, tree in forest.trees.items():
        root = forest.by_id[root_id]
        if not (query.root_required <= root.traits) or query.root_forbidden & root.traits:
            continue
        aggregates = set().union(*(provider.aggregates for provider in tree))
        shared = [provider for provider in forest.sharing if provider.root_id != root_id and provider.aggregates & aggregates]
        for candidate in _of_tree(forest, query, tree, shared):
            if not nested and len({forest.by_id[one].root_id for one in candidate[0]}) < len(candidate[0]):
                continue
            key = (frozenset((p, tuple(sorted(r.items()))) for p, r in candidate[0].items()),
                   frozenset((s, tuple(p.id for p in ps)) for s, ps in candidate[1].items()))
            if key not in seen:
                seen.add(key)
                found.append(candidate)
                if query.limit and len(found) >= query.limit:
                    return forest, found
    return forest, found


def _of_tree(forest, query, own, shared):
    ids = {provider.id for provider in own}
    ways = []
    for suffix, group in query.groups.items():
        kind = _single if suffix else _spread
        options = list(kind(forest, own + shared, group, suffix))
        if not options:
            return
        ways.append([(suffix, option) for option in options])
    for combination in itertools.product(*ways):
        chosen = dict(combination)
        total = collections.defaultdict(lambda: collections.defaultdict(int))
        for option in chosen.values():
            for provider, name, amount in option:
                if name is not None:
                    total[provider.id][name] += amount
        if not total or not any(provider_id in ids for provider_id in total):
            continue
        if query.group_policy == 'isolate':
            granular = [option[0][0].id for suffix, option in chosen.items() if suffix]
            if len(granular) != len(set(granular)):
                continue
        if not all(_fits(forest.by_id[provider_id], resources) for provider_id, resources in total.items()):
            continue
        if not _same_subtree(forest, query, chosen):
            continue
        mappings = {suffix: sorted({part[0] for part in option}, key=lambda provider: provider.id)
                    for suffix, option in chosen.items()}
        yield {provider_id: dict(resources) for provider_id, resources in total.items()}, mappings


def _fits(provider, resources):
    return all(provider.inventory[name].capacity - provider.inventory[name].used >= amount
               and amount <= provider.inventory[name].max_unit for name, amount in resources.items())


def render(forest, found, query, version):
    """The dictionary that answers a query, in the shape of microversion ``version``."""
    requests, roots = [], set()
    for allocations, mappings in found:
        resources = {forest.by_id[provider_id].uuid: {'resources': amounts} for provider_id, amounts in allocations.items()}
        if version >= (1, 12):
            request = {'allocations': resources}
        else:
            request = {'allocations': [{'resource_provider': {'uuid': uuid}, **entry} for uuid, entry in resources.items()]}
        if version >= (1, 34):
            request['mappings'] = {suffix: [provider.uuid for provider in members] for suffix, members in mappings.items()}
        requests.append(request)
        roots |= {forest.by_id[provider_id].root_id for provider_id in allocations}
    asked = {name for group in query.groups.values() for name in group.resources}
    used = {provider_id for allocations, _ in found for provider_id in allocations}
    summaries = {}
    for root_id in roots:
        for provider in forest.trees[root_id]:
            if version < (1, 29) and provider.id not in used:
                continue
            summaries[provider.uuid] = _summary(forest, provider, asked, version)
    return {'allocation_requests': requests, 'provider_summaries': summaries}


def _summary(forest, provider, asked, version):
    summary = {'resources': {name: {'capacity': record.capacity, 'used': record.used}
                             for name, record in provider.inventory.items() if version >= (1, 27) or name in asked}}
    if version >= (1, 17):
        summary['traits'] = sorted(provider.traits)
    if version >= (1, 29):
        parent = forest.by_id.get(provider.parent_id)
        summary['parent_provider_uuid'] = parent.uuid if parent else None
        summary['root_provider_uuid'] = forest.by_id[provider.root_id].uuid
    return summary
