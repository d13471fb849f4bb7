"""Which known connections end when filters change.

A packet of a known connection is accepted without a look at the groups' rules, so a rule that is taken away would
still let its old connections through. They are deleted from conntrack; what other rules still allow comes back with
the next packet, as a new connection.
"""
from kodiak.network.agent.nft import Table
from kodiak.network.drivers.linuxbridge.firewall import GROUPS, GUARD


def _lost(before, after):
    """True if a chain may have let something through that it no longer does."""
    if before is None or (after is not None and before.hash == after.hash):
        return False
    if before.seen is not None or after is None:
        return True
    return bool(set(before.rules) - set(after.rules))


def _addresses(guard):
    """{tap: addresses that it may send from}, link-local ones apart."""
    found = {}
    for name in ('addresses4', 'addresses6', 'networks4', 'networks6'):
        for key in guard.sets[name].elements if name in guard.sets else ():
            tap, _, address = key.split(' . ')
            if not address.startswith('fe80:'):
                found.setdefault(tap, set()).add(address)
    return found


def _elements(tables, title, name):
    table = tables.get(title)
    return table.sets[name].elements if table and name in table.sets else {}


def plan(before, after):
    """The connections to delete once ``after`` is in force.

    :param before, after: {title: Table}.
    :returns: a sorted list of (zone, address or CIDR), '' for all of a zone.
    """
    if GUARD not in before or GROUPS not in before:
        return []
    if GUARD not in after:
        after = {GUARD: Table('bridge', 'kodiak-guard'), GROUPS: Table('inet', 'kodiak-groups')}
    cuts = set()
    groups, later = before[GROUPS].chains, after[GROUPS].chains
    homes, homes_later = _elements(before, GUARD, 'homes'), _elements(after, GUARD, 'homes')
    had, has = _addresses(before[GUARD]), _addresses(after[GUARD])
    for bridge, zone in _elements(before, GROUPS, 'zones').items():
        if bridge not in _elements(after, GROUPS, 'zones'):
            cuts.add((int(zone), ''))
    lost_sets = {}
    for name, one in before[GROUPS].sets.items():
        if name.startswith(('members', 'ranges')):
            now = after[GROUPS].sets[name].elements if name in after[GROUPS].sets else {}
            gone = one.elements.keys() - now.keys()
            if gone:
                lost_sets[f'@{name}'] = gone
    lost_chains = {name for name, chain in groups.items() if _lost(chain, later.get(name))}
    for tap, zone in homes.items():
        zone, mine = int(zone), had.get(tap, set())
        if tap not in homes_later:
            cuts.update((zone, address) for address in mine)
            continue
        cuts.update((zone, address) for address in mine - has.get(tap, set()))
        for direction in ('egress', 'ingress'):
            name = f'{direction}-{tap}'
            asked = {rule.removeprefix('jump ') for rule in later[name].rules if rule.startswith('jump ')}
            if name in lost_chains or asked & lost_chains:
                cuts.update((zone, address) for address in mine)
            for group in asked:
                for rule in later[group].rules:
                    for word, gone in lost_sets.items():
                        if f'{word} ' in rule:
                            cuts.update((zone, address) for address in gone)
    whole = {zone for zone, address in cuts if not address}
    return sorted(cut for cut in cuts if not cut[1] or cut[0] not in whole)
