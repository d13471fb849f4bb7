"""Rings: what holds for all of them, whatever the devices; files and the command."""
import math
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodiak.storage_object.ring import Policies, Ring, command
from kodiak.storage_object.ring.builder import Builder, Refused

POWER = 7
PARTS = 1 << POWER


@st.composite
def layouts(draw, minimum=3):
    """Devices as (region, zone, server, name, weight)."""
    made = []
    for region in range(draw(st.integers(1, 2))):
        for zone in range(draw(st.integers(1, 3))):
            for server in range(draw(st.integers(1, 3))):
                for disk in range(draw(st.integers(1, 3))):
                    weight = draw(st.sampled_from([100, 100, 200, 50]))
                    made.append((region, zone, f'10.{region}.{zone}.{server}', f'd{disk}', weight))
    while len(made) < minimum:
        made.append((0, 0, '10.0.0.0', f'e{len(made)}', 100))
    return made


def build(layout, replicas=3.0, rounds=1, hours=0):
    builder = Builder(POWER, replicas, hours)
    for region, zone, server, name, weight in layout:
        builder.add(region, zone, server, 6200, name, weight)
    for number in range(rounds):
        builder.rebalance(now=number, seed=1)
    return builder


def settle(builder):
    """Rebalance until nothing moves; how many were moved, and in how many rounds."""
    moved = 0
    for rounds in range(12):
        now = builder.rebalance(seed=rounds)
        moved += now
        if not now:
            return moved, rounds
    raise AssertionError('it moves on and on')


def check_balance(builder):
    wanted = builder.wanted()
    held = [number for part in range(PARTS) for number in builder.held(part)]
    for number, share in wanted.items():
        assert abs(held.count(number) - share) <= max(2, share / 100), (number, share, held.count(number))
    assert len(held) == sum(map(len, builder.table))


def too_near(builder):
    """For each partition how many replicas, at least, are where there are more than the weight stands for, or lack where it stands
    for more, of regions, zones, servers and devices.
    """
    wanted, near = builder.wanted(), [0] * PARTS
    for tiers in (('region',), ('region', 'zone'), ('region', 'zone', 'ip'), ('id',)):
        share = {}
        for device in builder.live():
            key = tuple(device[name] for name in tiers)
            share[key] = share.get(key, 0) + wanted.get(device['id'], 0) / PARTS
        for part in range(PARTS):
            keys = [tuple(builder.devices[number][name] for name in tiers) for number in builder.held(part)]
            near[part] = max(near[part], sum(max(0, keys.count(key) - math.ceil(share[key] - 1e-9)) for key in set(keys)),
                             sum(max(0, math.floor(share[key] + 1e-9) - keys.count(key)) for key in share))
    return near


def check_dispersion(builder):
    assert sum(map(bool, too_near(builder))) <= PARTS // 100


RULES = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
FEWER = settings(RULES, max_examples=25)


@RULES
@given(layouts(), st.sampled_from([1.0, 2.0, 2.5, 3.0]))
def test_a_new_ring_is_balanced_and_spread(layout, replicas):
    builder = build(layout, replicas)
    assert builder.validate() == []
    settle(builder)
    check_balance(builder)
    check_dispersion(builder)


@RULES
@given(layouts(minimum=4), st.data())
def test_adding_a_device_moves_what_it_is_to_hold_and_little_else(layout, data):
    builder = build(layout)
    settle(builder)
    region, zone, server, _, _ = data.draw(st.sampled_from(layout))
    number = builder.add(region, zone, server, 6200, 'new', 100)
    necessary = builder.wanted()[number] + sum(too_near(builder))
    before = [list(builder.held(part)) for part in range(PARTS)]
    settle(builder)
    check_balance(builder)
    check_dispersion(builder)
    gone = sum(len(set(before[part]) - set(builder.held(part))) for part in range(PARTS))
    assert gone <= necessary * 1.1 + 4


@RULES
@given(st.integers(3, 12), st.integers(1, 3))
def test_among_equals_a_new_device_takes_its_share_and_nothing_else_moves(count, each):
    layout = [(0, zone, f'h{zone}', f'd{disk}', 100) for zone in range(count) for disk in range(each)]
    builder = build(layout)
    settle(builder)
    number = builder.add(0, count, f'h{count}', 6200, 'd0', 100)
    before = [list(builder.held(part)) for part in range(PARTS)]
    settle(builder)
    gone = sum(len(set(before[part]) - set(builder.held(part))) for part in range(PARTS))
    # A share is seldom whole: each of the others may be off by one before and after.
    assert gone <= math.ceil(builder.wanted()[number]) + len(layout) // 4


@RULES
@given(layouts(minimum=5), st.data())
def test_removing_a_device_moves_what_it_held(layout, data):
    builder = build(layout)
    settle(builder)
    number = data.draw(st.sampled_from([device['id'] for device in builder.live()]))
    before = [list(builder.held(part)) for part in range(PARTS)]
    builder.remove(number)
    builder.rebalance(seed=2)
    assert builder.validate() == []
    assert all(number not in builder.held(part) for part in range(PARTS))
    for part in range(PARTS):
        if number in before[part]:
            # Of a partition that lost a replica no other is moved at the same time.
            assert len(set(before[part]) - set(builder.held(part))) == 1


@RULES
@given(layouts(minimum=4))
def test_a_ring_at_rest_stays(layout):
    builder = build(layout)
    settle(builder)
    table = [list(row) for row in builder.table]
    assert builder.rebalance(seed=9) == 0
    assert builder.table == table


@st.composite
def uneven(draw):
    """Servers in zones, whose weights are far from each other."""
    made = []
    for zone in range(draw(st.integers(2, 4))):
        for server in range(draw(st.integers(1, 3))):
            for disk in range(draw(st.integers(1, 3))):
                weight = draw(st.sampled_from([10, 40, 100, 300, 1000]))
                made.append((0, zone, f'10.0.{zone}.{server}', f'd{disk}', weight))
    while len(made) < 3:
        made.append((0, 0, '10.0.0.9', f'e{len(made)}', 100))
    return made


@FEWER
@given(uneven(), st.sampled_from([1.0, 2.0, 2.5, 3.0]), st.sampled_from([0.05, 0.1, 0.5, 1.0, 3.0]))
def test_overload_gives_no_device_more_than_it_says(layout, replicas, overload):
    plain, builder = build(layout, replicas), build(layout, replicas)
    builder.set_overload(overload)
    settle(builder)
    wanted, weighed = builder.wanted(), builder.weighed()
    assert builder.validate() == []
    assert abs(sum(wanted.values()) - sum(weighed.values())) < 1e-3 and set(wanted) == set(weighed)
    for number, share in wanted.items():
        held = sum(number in builder.held(part) for part in range(PARTS))
        assert share <= PARTS + 1e-6
        # What is too much for one device, which can hold a partition but once, goes to the others.
        if all(other < PARTS - 1e-6 for other in wanted.values()):
            assert share <= weighed[number] * (1 + overload) + 1e-6
        assert abs(held - share) <= max(2, share / 50)
    settle(plain)
    assert sum(builder.near().values()) <= sum(plain.near().values()) + 2


@FEWER
@given(uneven(), st.sampled_from([2.0, 2.5, 3.0]))
def test_overload_enough_spreads_replicas_whatever_the_weights(layout, replicas):
    builder = build(layout, replicas)
    builder.set_overload(1000)
    settle(builder)
    assert max(builder.near().values()) <= PARTS // 100 + 1


@FEWER
@given(layouts(), st.sampled_from([1.0, 2.5, 3.0]))
def test_without_overload_weights_hold(layout, replicas):
    builder = build(layout, replicas)
    assert builder.wanted() == builder.weighed()
    builder.set_overload(0.1)
    builder.set_overload(0)
    assert builder.wanted() == builder.weighed()


def test_overload_where_a_failure_domain_is_too_small():
    layout = [(0, zone, f'h{zone}', f'd{disk}', weight) for zone, weight in enumerate([100, 100, 80]) for disk in (0, 1)]
    small = 3 * 80 / 280            # replicas that the weight of the third zone stands for: it would have to hold one of each
    for overload, near in ((0, True), (0.1, True), (0.2, False)):
        builder = build(layout)
        builder.set_overload(overload)
        settle(builder)
        assert (builder.near()['zone'] > 0) == near
        held = sum(number in builder.held(part) for part in range(PARTS) for number in (4, 5))
        assert held == pytest.approx(min(1, small * (1 + overload)) * PARTS, abs=2)
    assert builder.balance() < 20 and builder.dispersion() == 0


@FEWER
@given(layouts(minimum=4), st.data())
def test_a_change_of_overload_moves_what_it_must(layout, data):
    builder = build(layout)
    settle(builder)
    before, old = [list(builder.held(part)) for part in range(PARTS)], builder.wanted()
    builder.set_overload(data.draw(st.sampled_from([0.1, 0.5, 5.0])))
    near = sum(too_near(builder))
    new = builder.wanted()
    settle(builder)
    check_balance(builder)
    gone = sum(len(set(before[part]) - set(builder.held(part))) for part in range(PARTS))
    assert gone <= (sum(max(0, new[number] - old[number]) for number in new) + near) * 1.2 + len(layout)


@FEWER
@given(layouts(minimum=4), st.data())
def test_a_change_of_weight_moves_what_it_must(layout, data):
    builder = build(layout)
    settle(builder)
    before, old = [list(builder.held(part)) for part in range(PARTS)], builder.wanted()
    number = data.draw(st.sampled_from([device['id'] for device in builder.live()]))
    builder.set_weight(number, data.draw(st.sampled_from([0, 10, 70, 300])))
    if sum(device['weight'] > 0 for device in builder.live()) < 3:
        return
    near = sum(too_near(builder))
    new = builder.wanted()
    settle(builder)
    check_balance(builder)
    check_dispersion(builder)
    gone = sum(len(set(before[part]) - set(builder.held(part))) for part in range(PARTS))
    assert gone <= (sum(max(0, new[number] - old.get(number, 0)) for number in new) + near) * 1.2 + len(layout)


@pytest.mark.parametrize('before,after', [(3.0, 2.0), (2.0, 3.0), (2.0, 2.5), (3.0, 2.25)])
def test_the_number_of_replicas_changes(before, after):
    builder = build([(0, zone, f'h{zone}', f'd{n}', 100) for zone in range(4) for n in range(2)], before)
    settle(builder)
    held = [builder.held(part) for part in range(PARTS)]
    builder.set_replicas(after)
    settle(builder)
    assert builder.validate() == []
    assert sum(len(builder.held(part)) for part in range(PARTS)) == int(PARTS * after)
    check_balance(builder)
    check_dispersion(builder)
    kept = sum(len(set(held[part]) & set(builder.held(part))) for part in range(PARTS))
    assert kept >= PARTS * min(before, after) * 0.7


def test_partitions_that_moved_lately_rest():
    builder = build([(0, 0, 'a', f'd{n}', 100) for n in range(3)], hours=1)
    builder.add(0, 0, 'b', 6200, 'd', 100)
    assert builder.rebalance(now=60) == 0
    assert 0 < builder.rebalance(now=7200) <= PARTS
    assert builder.rebalance(now=7201) == 0


def test_no_more_than_one_replica_of_a_partition_moves_at_a_time():
    builder = build([(0, 0, 'a', f'd{n}', 100) for n in range(3)])
    for zone in (1, 2):
        for disk in range(3):
            builder.add(0, zone, f'z{zone}', 6200, f'd{disk}', 100)
    before = [builder.held(part) for part in range(PARTS)]
    builder.rebalance(seed=1)
    assert all(len(set(before[part]) - set(builder.held(part))) <= 1 for part in range(PARTS))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(Refused):
        Builder(0, 3, 1)
    builder = build([(0, 0, 'a', f'd{n}', 100) for n in range(3)])
    for call in (lambda: builder.add(0, 0, 'a', 6200, 'd0', 1), lambda: builder.add(0, 0, 'a', 6200, 'x', -1),
                 lambda: builder.remove(9), lambda: builder.set_weight(7, 1)):
        with pytest.raises(Refused):
            call()
    builder.remove(0)
    with pytest.raises(Refused, match='3 devices'):
        builder.rebalance()


@pytest.fixture
def ring_file(tmp_path):
    builder = build([(0, zone, f'h{zone}', f'd{n}', 100) for zone in range(3) for n in range(2)], 2.5)
    builder.save(tmp_path / 'object.builder')
    builder.write_ring(str(tmp_path / 'object.ring.gz'))
    return builder, str(tmp_path / 'object.ring.gz')


def test_a_ring_file_says_what_its_builder_says(ring_file):
    builder, path = ring_file
    ring = Ring(path)
    assert ring.replica_count == 3
    for part in range(PARTS):
        assert [device['id'] for device in ring.primaries(part)] == builder.held(part)
        handoffs = [device['id'] for device in ring.handoffs(part)]
        assert sorted(handoffs + builder.held(part)) == list(range(6))
    assert 0 <= ring.get_part('a', 'c', 'o') < PARTS
    assert ring.hash_path('a', 'c') != ring.hash_path('a', 'c', '')
    assert Builder.load(os.path.splitext(os.path.splitext(path)[0])[0] + '.builder').table == builder.table


def test_a_new_file_holds_and_a_broken_one_does_not(ring_file, tmp_path):
    builder, path = ring_file
    os.mkdir(tmp_path / 'keep')
    ring = Ring(path, str(tmp_path / 'keep'))
    assert not ring.reload_if_changed()
    builder.rebalance()
    builder.write_ring(path)
    assert ring.reload_if_changed() and ring.version == builder.version
    with open(path, 'rb') as file:
        good = file.read()
    for bad in (b'', b'no ring', good[:-20], good[:200] + b'\0\0\0' + good[203:]):
        with open(path, 'wb') as file:
            file.write(bad)
        assert not ring.reload_if_changed()
        assert ring.version == builder.version
        with pytest.raises(ValueError, match='is no ring'):
            Ring(path)
        assert Ring(path, str(tmp_path / 'keep')).version == builder.version


def test_the_command(tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            command.main([str(tmp_path / 'x.builder'), *words])
        return ended.value.code
    assert run('create', '6', '2', '0') == 0
    assert 'there already' in run('create', '6', '2', '0')
    assert 'not rREGIONzZONE' in run('add', 'nonsense', '1')
    assert run('validate') == 1
    for number in range(3):
        assert run('add', f'r1z{number}-127.0.0.1:6200/d{number}', '100') == 0
    assert run('rebalance') == 0
    assert run('dispersion') == 0
    assert run('overload', '10%') == 0
    assert run('min-part-hours', '2') == 0 and run('min-part-hours', '0') == 0
    assert run('replicas', '1.5') == 0 and run('rebalance') == 0
    assert run('replicas', '2') == 0 and run('rebalance') == 0
    assert 'The overload is 0 or more' in run('overload', '-1') and 'no number' in run('overload', 'much')
    assert 'at least one replica' in run('replicas', '0')
    assert run('weight', '2', '0') == 0
    assert run('rebalance') == 0
    assert run('remove', '2') == 0
    assert run('rebalance') == 0
    capsys.readouterr()
    assert run('show') == 0
    shown = capsys.readouterr().out
    assert '64 partitions' in shown and 'overload 10 %' in shown and 'balance 0.00 %' in shown and 'd2' not in shown
    assert run('validate') == 0
    assert Ring(str(tmp_path / 'x.ring.gz')).replica_count == 2


@pytest.mark.parametrize('texts,good', [
    (['0:gold', '1:old-'], True), (['gold'], False), (['0:a', '0:b'], False), (['0:a', '1:A'], False)])
def test_policies(texts, good):
    class Conf:
        class storage:
            policies, ring_path = texts, '/nowhere'
    if good:
        gold, old = Policies(Conf)
        assert (gold.default, gold.deprecated, old.name, old.deprecated) == (True, False, 'old', True)
    else:
        with pytest.raises(ValueError):
            Policies(Conf)
