"""Tables as data: what a script does, and that what was read back compares equal."""
import json

from kodiak.network.agent.nft import Chain, Set, Table, diff, parse


def _table(**sets):
    return Table('inet', 't', {'plain': Set('ipv4_addr', elements=sets.get('plain', {})),
                               'jumps': Set('mark', maps='verdict', elements=sets.get('jumps', {}))},
                 {'one': Chain(('ip saddr @plain accept', 'drop')),
                  'base': Chain(('meta mark vmap @jumps',), 'type filter hook forward priority 0; policy accept;')})


def test_a_new_table_is_made_whole():
    script = diff(_table(plain={'10.0.0.1': ''}, jumps={'1': 'jump one'}), None).splitlines()
    assert script[0] == 'add table inet t'
    assert 'add element inet t plain { 10.0.0.1 }' in script
    assert script.index('add chain inet t one') < script.index('add element inet t jumps { 1 : jump one }')
    assert [line for line in script if line.startswith('add rule inet t one')][-1].endswith('/2"')


def test_nothing_to_do():
    assert diff(_table(plain={'10.0.0.1': ''}), _table(plain={'10.0.0.1': ''})) == ''


def test_one_member_costs_one_element():
    assert diff(_table(plain={'10.0.0.1': '', '10.0.0.2': ''}), _table(plain={'10.0.0.1': ''})) \
        == 'add element inet t plain { 10.0.0.2 }\n'


def test_a_changed_value_is_replaced():
    script = diff(_table(jumps={'1': 'jump one'}), _table(jumps={'1': 'jump base'}))
    assert script == 'delete element inet t jumps { 1 }\nadd element inet t jumps { 1 : jump one }\n'


def test_a_changed_chain_is_filled_anew():
    wanted, observed = _table(), _table()
    wanted.chains['one'] = Chain(('drop',))
    lines = diff(wanted, observed).splitlines()
    assert lines[0] == 'flush chain inet t one'
    assert len(lines) == 2


def test_what_is_not_wanted_goes_after_what_names_it():
    observed = _table(jumps={'1': 'jump old'})
    observed.chains['old'] = Chain(('ip saddr @gone accept',))
    observed.sets['gone'] = Set('ipv4_addr')
    lines = diff(_table(), observed).splitlines()
    assert lines == ['delete element inet t jumps { 1 }', 'flush chain inet t old', 'delete chain inet t old',
                     'delete set inet t gone']


def test_another_version_of_the_table_is_replaced_at_once():
    observed = _table()
    observed.sets['plain'].type = 'ipv6_addr'
    lines = diff(_table(), observed).splitlines()
    assert lines[:2] == ['delete table inet t', 'add table inet t']


def test_reading_back():
    wanted = _table(plain={'10.0.0.1': ''}, jumps={'7': 'jump one'})
    hashes = {name: chain.hash for name, chain in wanted.chains.items()}
    base = {'family': 'inet', 'table': 't'}
    text = json.dumps({'nftables': [
        {'metainfo': {'version': '1'}}, {'table': {'family': 'inet', 'name': 't'}},
        {'set': {**base, 'name': 'plain', 'type': 'ipv4_addr', 'elem': ['10.0.0.1']}},
        {'map': {**base, 'name': 'jumps', 'type': 'mark', 'map': 'verdict', 'elem': [[7, {'jump': {'target': 'one'}}]]}},
        {'chain': {**base, 'name': 'one'}},
        {'chain': {**base, 'name': 'base', 'type': 'filter', 'hook': 'forward', 'prio': 0, 'policy': 'accept'}},
        {'rule': {**base, 'chain': 'one', 'expr': []}},
        {'rule': {**base, 'chain': 'one', 'comment': 'h:' + hashes['one'], 'expr': []}},
        {'rule': {**base, 'chain': 'base', 'comment': 'h:' + hashes['base'], 'expr': []}},
    ]})
    observed = parse(text)['inet t']
    assert diff(wanted, observed) == ''
    # A rule that somebody put in, or took out, is noticed.
    body = json.loads(text)
    body['nftables'].insert(6, {'rule': {**base, 'chain': 'one', 'expr': []}})
    assert 'flush chain inet t one' in diff(wanted, parse(json.dumps(body))['inet t'])


def test_elements_are_read_as_they_are_written():
    base = {'family': 'inet', 'table': 't'}
    elements = [{'concat': ['tap1', 'fa:16:3e:00:00:01', {'prefix': {'addr': '10.0.0.0', 'len': 24}}]},
                {'concat': ['tap1', 'fa:16:3e:00:00:01', {'range': ['fd00::1', 'fd00::5']}]},
                {'elem': {'val': 'x', 'timeout': 5}}]
    tables = parse(json.dumps({'nftables': [{'table': {'family': 'inet', 'name': 't'}}, {'set': {
        **base, 'name': 's', 'type': ['ifname', 'ether_addr', 'ipv4_addr'], 'flags': ['interval'], 'elem': elements}}]}))
    one = tables['inet t'].sets['s']
    assert one.shape == ('ifname . ether_addr . ipv4_addr', '', True)
    assert set(one.elements) == {'tap1 . fa:16:3e:00:00:01 . 10.0.0.0/24', 'tap1 . fa:16:3e:00:00:01 . fd00::1-fd00::5', 'x'}
