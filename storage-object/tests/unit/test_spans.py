"""Ranges of names: where each name is, whatever overlaps; and what holds of two versions, in whatever order they come."""
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kodiak.storage_object.backend.shards import Table, begin, cut, state_of_own
from kodiak.storage_object.proxy.http import Fault
from kodiak.storage_object.proxy.shards import Shards
from kodiak.storage_object.spans import ACTIVE, SHARDED, SHRINKING, Plan, Range, asked, quoted, root_of, segments, unquoted

RULES = settings(max_examples=200, deadline=None, derandomize=True)
TEXT = st.text('abc\u00e9\U0001f600', max_size=3)


def stamp(number):
    return f'{number:010d}.00000'


@st.composite
def some_ranges(draw):
    found = []
    for number in range(draw(st.integers(0, 6))):
        lower, upper = sorted((draw(TEXT), draw(TEXT)))
        if lower == upper or draw(st.integers(0, 4)) == 0:
            upper = ''
        found.append(Range(f'a/{number}', stamp(draw(st.integers(0, 3))), lower, upper,
                           state=draw(st.sampled_from([ACTIVE, SHRINKING]))))
    return found


@RULES
@given(some_ranges(), TEXT.filter(bool), TEXT, TEXT)
def test_each_name_is_in_one_place(ranges, name, one, two):
    lower, upper = sorted((one, two))
    upper = '' if lower == upper else upper
    found = segments(ranges, lower, upper)
    assert found[0][0] == lower and found[-1][1] == upper
    assert all(before[1] == after[0] != '' and before[2] is not after[2] for before, after in itertools.pairwise(found))
    if name > lower and (not upper or name <= upper):
        holding = [each for each in ranges if each.holds(name)]
        wanted = max(holding, key=lambda each: (each.state == SHRINKING, each.stamp, each.name), default=None)
        assert Plan(found).find(name) is wanted


@RULES
@given(st.lists(st.text('ab/', min_size=1, max_size=3), max_size=8), TEXT, st.text('ab/', max_size=2), st.text('ab/', max_size=2),
       st.text('ab/', max_size=2), st.booleans())
def test_no_shard_is_left_out_that_has_what_is_asked_for(names, bound, marker, end, prefix, backwards):
    query = {'marker': marker, 'end_marker': end, 'prefix': prefix}
    low, high = (end, marker) if backwards else (marker, end)
    shown = [name for name in names if name.startswith(prefix) and name > low and (not high or name < high)]
    for lower, upper in (('', bound), (bound, '')):
        if any(lower < name and (not upper or name <= upper) for name in shown):
            assert asked(lower, upper, query, backwards)


@RULES
@given(st.permutations(range(4)), st.randoms())
def test_the_order_of_versions_does_not_matter(order, chance):
    versions = [Range('a/b', stamp(chance.randrange(3)), chance.choice('ab'), chance.choice(['c', 'd', '']), chance.randrange(3), 1,
                      stamp(chance.randrange(3)), chance.choice([ACTIVE, SHRINKING]), stamp(chance.randrange(3)),
                      chance.randrange(2)) for _ in range(4)]
    one, two = versions[0], versions[order[0]]
    for each in versions:
        one = one.merged(each)
    for place in order:
        two = two.merged(versions[place])
    assert one == two == one.merged(two)


KEY, ROOT = 'a/c', ('a', 'c')


def table():
    return Table(KEY, {}, '', None, stamp(1))


def tell(source, target):
    """One file of a container tells another."""
    if source.ranges:
        target.merge_message(source.own, source.previous, source.others)


def start(found, number):
    return begin(found, cut(KEY, ROOT, ['m'], found.own, stamp(number)), stamp(number))


def facts(found):
    return found.own, sorted(found.others)


@pytest.mark.parametrize('seed', range(30))
def test_files_that_began_apart_come_to_one_epoch(seed):
    chance = random.Random(seed)
    tables = [table() for _ in range(3)]
    for number in chance.sample(range(3), 2):
        assert start(tables[number], 5 + number)
    for _ in range(6):
        tell(*chance.sample(tables, 2))
    for source, target in itertools.permutations(range(3), 2):
        tell(tables[source], tables[target])
    for source, target in itertools.permutations(range(3), 2):
        tell(tables[source], tables[target])
    assert len({repr(facts(each)) for each in tables}) == 1 and len(tables[0].others) == 2


def test_who_has_copied_everything_waits_for_what_is_decided():
    one, two, three = table(), table(), table()
    start(one, 5)
    tell(one, two)
    two.context = {'epoch': stamp(5), 'complete': True}
    start(three, 6)
    tell(three, two)
    assert two.own.epoch == stamp(5)                    # promised
    tell(three, one)
    assert one.own.epoch == stamp(6)                    # not
    three.own = three.own._replace(state=SHARDED, state_stamp=stamp(7))
    tell(three, two)
    assert facts(two) == facts(three) and state_of_own(two.own) == 'sharded'
    late = table()
    start(late, 9)                                      # it has not heard of anything
    tell(late, two)
    assert facts(two) == facts(three)
    tell(two, late)
    assert facts(late) == facts(three)
    assert not start(two, 10)


def test_it_is_cut_up_again_after_it_was_made_whole():
    one, two = table(), table()
    start(one, 5)
    one.own = one.own._replace(state=SHARDED, state_stamp=stamp(6))
    tell(one, two)
    one.own = one.own._replace(state=ACTIVE, state_stamp=stamp(7))
    one.merge([each._replace(deleted=1, stamp=stamp(7)) for each in one.others])
    assert state_of_own(one.own) == 'collapsed' and state_of_own(two.own) == 'sharded'
    assert start(one, 8)                                # (the other has not heard that it is whole)
    tell(one, two)
    assert facts(one) == facts(two) and state_of_own(two.own) == 'sharding'


def test_shards_of_shards_without_end_are_an_error():
    with pytest.raises(Fault):
        Shards(None, None, None).across(('a', 'c'), [], {'limit': '1'}, {}, depth=0)


@pytest.mark.parametrize('name', ['c', 'c d', 'c%25', '\u00e9\U0001f600'])
def test_names_in_headers(name):
    assert unquoted(quoted('AUTH_x', name)) == ('AUTH_x', name)
    assert unquoted('nothing') is None and root_of({'metadata': {}}) is None
