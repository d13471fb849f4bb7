"""Allocation candidates: where a request for resources would fit.

Most deployments have hosts without children and without providers that share. There a candidate is one provider, one SQL
statement finds as many as the caller wants, and their JSON is put together from what the providers' rows hold ready
(:func:`flat`). Trees, sharing providers and granular groups take the general way (:mod:`.trees`).
"""
import dataclasses

import orjson
import sqlalchemy as sa

from ..models import placement as models

P, I, T, A = models.providers, models.inventories, models.provider_traits, models.provider_aggregates
SHARES = 'MISC_SHARES_VIA_AGGREGATE'


@dataclasses.dataclass
class Group:
    """One request group of a candidates query.

    ``resources``: ``{class: amount}``; ``required``: list of sets, one trait of each is needed; ``forbidden``: traits that
    none may have; ``member_of``: list of sets of aggregates, one of each is needed; ``forbidden_aggregates``; ``in_tree``: uuid.
    """

    resources: dict = dataclasses.field(default_factory=dict)
    required: list = dataclasses.field(default_factory=list)
    forbidden: set = dataclasses.field(default_factory=set)
    member_of: list = dataclasses.field(default_factory=list)
    forbidden_aggregates: set = dataclasses.field(default_factory=set)
    in_tree: str | None = None


@dataclasses.dataclass
class Query:
    """A whole candidates query: ``groups`` by suffix (``''`` is the one without), and what binds them together."""

    groups: dict
    group_policy: str | None = None
    limit: int | None = None
    root_required: set = dataclasses.field(default_factory=set)
    root_forbidden: set = dataclasses.field(default_factory=set)
    same_subtree: list = dataclasses.field(default_factory=list)


def is_flat(connection, query):
    """True if every candidate can only be one provider with everything."""
    group = query.groups.get('')
    if (len(query.groups) != 1 or group is None or group.in_tree or query.same_subtree or query.root_required
            or query.root_forbidden):
        return False
    nested = sa.select(P.c.id).where(P.c.parent_id.is_not(None)).limit(1)
    sharing = sa.select(T.c.provider_id).where(T.c.trait == SHARES).limit(1)
    return connection.execute(sa.union_all(sa.select(nested.subquery()), sa.select(sharing.subquery()))).first() is None


def fitting(group):
    """The SELECT of ids of providers that fit a group all by themselves.

    One join a class, along the index of class and provider: with a limit the database stops as soon as it has enough.
    """
    first, select = None, None
    for name, amount in group.resources.items():
        table = I.alias()
        room = sa.and_(table.c.resource_class == name, table.c.capacity - table.c.used >= amount, table.c.min_unit <= amount,
                       table.c.max_unit >= amount, amount % table.c.step_size == 0)
        if select is None:
            first, select = table, sa.select(table.c.provider_id).where(room)
        else:
            select = select.join(table, table.c.provider_id == first.c.provider_id).where(room)
    for condition in membership(group, first.c.provider_id):
        select = select.where(condition)
    return select


def membership(group, provider_id):
    """The conditions of a group's traits and aggregates on a column of provider ids."""
    having_trait = sa.select(T.c.provider_id)
    member = sa.select(A.c.provider_id)
    conditions = [provider_id.in_(having_trait.where(T.c.trait.in_(names))) for names in group.required]
    if group.forbidden:
        conditions.append(provider_id.not_in(having_trait.where(T.c.trait.in_(group.forbidden))))
    conditions += [provider_id.in_(member.where(A.c.aggregate.in_(uuids))) for uuids in group.member_of]
    if group.forbidden_aggregates:
        conditions.append(provider_id.not_in(member.where(A.c.aggregate.in_(group.forbidden_aggregates))))
    return conditions


def hosts(connection, group, limit=None, shuffle=False):
    """Providers that fit a group: rows of ``(id, uuid, name, summary, traits)``; both last ones are JSON text."""
    found = fitting(group)
    if limit is not None and not shuffle:
        found = found.limit(limit)
    select = sa.select(P.c.id, P.c.uuid, P.c.name, P.c.summary, P.c.traits).where(P.c.id.in_(sa.select(found.subquery())))
    if shuffle:
        select = select.order_by(sa.func.random() if connection.dialect.name != 'mysql' else sa.func.rand()).limit(limit)
    return connection.execute(select).all()


def flat(connection, query, version):
    """The answer to a flat query as JSON bytes, in the shape of microversion ``version``."""
    group = query.groups['']
    resources = orjson.dumps(group.resources).decode()
    mapped = version >= (1, 34)
    keyed = version >= (1, 12)
    requests, summaries = [], []
    for _, uuid, _, summary, traits in hosts(connection, group, query.limit):
        if keyed:
            mapping = f',"mappings":{{"":["{uuid}"]}}' if mapped else ''
            requests.append(f'{{"allocations":{{"{uuid}":{{"resources":{resources}}}}}{mapping}}}')
        else:
            requests.append(f'{{"allocations":[{{"resource_provider":{{"uuid":"{uuid}"}},"resources":{resources}}}]}}')
        if version < (1, 27):
            known = orjson.loads(summary)
            summary = orjson.dumps({name: known[name] for name in group.resources}).decode()
        text = f'"{uuid}":{{"resources":{summary}'
        if version >= (1, 17):
            text += f',"traits":{traits}'
        if version >= (1, 29):
            text += f',"parent_provider_uuid":null,"root_provider_uuid":"{uuid}"'
        summaries.append(text + '}')
    return f'{{"allocation_requests":[{",".join(requests)}],"provider_summaries":{{{",".join(summaries)}}}}}'.encode()


def explain(connection, group):
    """Why nothing fits: a sentence with how many hosts there are, how many lack what, and what the nearest lacks.

    :param group: the :class:`Group` that was refused.
    """
    total = connection.execute(sa.select(sa.func.count()).select_from(P)).scalar()
    if not total:
        return 'There is no host.'
    conditions = membership(group, P.c.id)
    select = sa.select(P.c.id, P.c.name)
    for condition in conditions:
        select = select.where(condition)
    named = dict(connection.execute(select).all())
    parts = [f'Of {total} hosts']
    if conditions:
        parts.append(f'{total - len(named)} lack a required trait or aggregate or have a forbidden one')
    rows = connection.execute(sa.select(I.c.provider_id, I.c.resource_class, I.c.capacity, I.c.used, I.c.max_unit)
                              .where(I.c.resource_class.in_(group.resources)))
    room = {}
    for provider_id, name, capacity, used, max_unit in rows:
        if provider_id in named:
            room.setdefault(provider_id, {})[name] = min(capacity - used, max_unit)
    lacking = {name: sum(1 for provider_id in named if room.get(provider_id, {}).get(name, 0) < amount)
               for name, amount in group.resources.items()}
    parts += [f'{count} lack {name}' for name, count in lacking.items() if count]
    nearest = min(named, default=None, key=lambda provider_id: sum(
        max(0, amount - room.get(provider_id, {}).get(name, 0)) / amount for name, amount in group.resources.items()))
    sentence = ', '.join(parts) + '.'
    if nearest is not None:
        short = [f'{name}: {max(room.get(nearest, {}).get(name, 0), 0)} free of {amount} wanted'
                 for name, amount in group.resources.items() if room.get(nearest, {}).get(name, 0) < amount]
        if short:
            sentence += f' The nearest, {named[nearest]}, lacks {"; ".join(short)}.'
    return sentence
