"""Erasure codes, and which files of fragments hold."""
import os
import random

import pytest

from kodiak.storage_object.backend import fragments
from kodiak.storage_object.backend.diskfile import sort
from kodiak.storage_object.ring import Policies
from kodiak.storage_object.ring.builder import Builder

pytest.importorskip('pyeclib', reason='erasure codes need pyeclib')
from kodiak.storage_object.erasure import Codec, Damaged


@pytest.mark.parametrize('scheme', ['2+1', '4+2', '10+4', '4+2/isa_l_rs_cauchy'])
@pytest.mark.parametrize('length', [1, 100, 70_001, 1 << 20])
def test_enough_fragments_are_the_segment(scheme, length):
    codec, chance, data = Codec.of(scheme), random.Random(length), os.urandom(length)
    fragments = codec.encode(data)
    assert {len(fragment) for fragment in fragments} == {codec.fragment_size(length)}
    chosen = chance.sample(range(codec.count), codec.data)
    assert codec.decode([fragments[number] for number in chosen]) == data
    lost = next(number for number in range(codec.count) if number not in chosen)
    assert codec.rebuild([fragments[number] for number in chosen], lost) == fragments[lost]


def test_a_damaged_fragment_is_known():
    codec = Codec.of('4+2')
    fragment = codec.encode(os.urandom(100_000))[1]
    codec.check(fragment, 1)
    for place in (3, 50, 200, len(fragment) - 1):
        bad = bytearray(fragment)
        bad[place] ^= 1
        with pytest.raises(Damaged):
            codec.check(bytes(bad), 1)
    for bad in (b'', b'x', fragment[:-1]):
        with pytest.raises(Damaged):
            codec.check(bad, 1)
    with pytest.raises(Damaged):
        codec.check(fragment, 2)


def test_numbers_of_a_scheme():
    codec = Codec.of('4+2*2')
    assert (codec.count, codec.replicas, codec.quorum, codec.copies) == (6, 12, 8, 2)
    codec = Codec.of('4+2')
    assert codec.archive_size(0) == 0
    assert codec.archive_size(3 * codec.segment + 5) == 3 * codec.fragment + codec.fragment_size(5)
    for scheme in ('2+1', '4+2', '10+4', '2+4', '2+1*2', '4+2*3'):
        codec = Codec.of(scheme)
        # A deletion that was answered leaves too few devices to make up the object.
        assert codec.majority + codec.data > codec.replicas
        # A write that was answered can be read without any one device, and is known as durable without all that may be lost.
        assert -(-(codec.quorum - 1) // codec.copies) >= codec.data
        assert codec.durable > codec.parity * codec.copies and codec.durable <= codec.quorum <= codec.replicas


@pytest.mark.parametrize('text', ['4', '4+', '0+2', '4+0', '4+2*0', '4+2/nothing', '4+2*', 'a+b'])
def test_a_scheme_that_there_is_not(text):
    class Conf:
        class storage:
            policies, ring_path = ['0:gold', f'1:cold={text}'], '/nowhere'
    with pytest.raises(ValueError):
        Policies(Conf)


def test_a_ring_of_another_number_of_replicas_is_refused(tmp_path):
    class Conf:
        class storage:
            policies, ring_path = ['0:cold=2+1'], str(tmp_path)
    for replicas, good in ((2, False), (3, True)):
        builder = Builder(4, replicas, 0)
        for number in range(4):
            builder.add(1, number, '127.0.0.1', 6200, f'd{number}', 1)
        builder.rebalance()
        builder.write_ring(str(tmp_path / 'object.ring.gz'))
        policy, = Policies(Conf)
        if good:
            assert policy.ring.replica_count == policy.codec.replicas
        else:
            with pytest.raises(ValueError, match=r'object.ring.gz has 2 replicas; 2\+1/\w+ of the policy .cold. needs 3'):
                _ = policy.ring


def test_without_pyeclib_it_is_said(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pyeclib', None)
    with pytest.raises(ValueError, match='need pyeclib'):
        Codec.of('4+2')


T = [f'{second:010d}.00000' for second in range(10)]


@pytest.mark.parametrize('names,data,held,gone,rubbish', [
    # Written, and not durable yet: nothing is to be seen.
    ([f'{T[1]}#0.data'], None, {T[1]: {0}}, None, set()),
    ([f'{T[1]}#0#d.data'], T[1], {T[1]: {0}}, None, set()),
    # What is newer and not durable hides nothing.
    ([f'{T[1]}#0#d.data', f'{T[2]}#0.data'], T[1], {T[1]: {0}, T[2]: {0}}, None, set()),
    ([f'{T[1]}#0#d.data', f'{T[2]}#0#d.data'], T[2], {T[2]: {0}}, None, {f'{T[1]}#0#d.data'}),
    ([f'{T[1]}#0.data', f'{T[2]}#0#d.data'], T[2], {T[2]: {0}}, None, {f'{T[1]}#0.data'}),
    # Several numbers, one of them durable: all are.
    ([f'{T[1]}#0#d.data', f'{T[1]}#3.data'], T[1], {T[1]: {0, 3}}, None, set()),
    ([f'{T[1]}#0.data', f'{T[1]}#0#d.data'], T[1], {T[1]: {0}}, None, {f'{T[1]}#0.data'}),
    # Deleted.
    ([f'{T[1]}#0#d.data', f'{T[2]}.ts'], None, {}, T[2], {f'{T[1]}#0#d.data'}),
    ([f'{T[3]}#0.data', f'{T[2]}.ts'], None, {T[3]: {0}}, T[2], set()),
    ([f'{T[3]}#0#d.data', f'{T[2]}.ts'], T[3], {T[3]: {0}}, None, {f'{T[2]}.ts'}),
    ([f'{T[1]}#0#d.data', f'{T[2]}.meta', f'{T[1]}.meta'], T[1], {T[1]: {0}}, None, {f'{T[1]}.meta'}),
])
def test_files_of_fragments(names, data, held, gone, rubbish):
    for seed in range(4):
        random.Random(seed).shuffle(names)
        files = sort(names)
        assert (files.data, files.gone, set(files.rubbish)) == (data, gone, rubbish)
        assert {stamp: set(found) for stamp, found in files.held.items()} == held
        if data:
            assert files.data_name in names


def test_what_was_given_up_goes_and_nothing_else(tmp_path):
    folder = tmp_path / 'abc' / 'hash'
    folder.mkdir(parents=True)
    keep = [f'{T[2]}#0#d.data', f'{T[2]}#1.data', f'{T[3]}.meta', f'{T[6]}#0.data']
    for name in (*keep, f'{T[4]}#0.data'):
        (folder / name).touch()
    names = sorted(os.listdir(folder))
    assert fragments.reclaim(str(folder), names, T[5]) == sorted(keep) == sorted(os.listdir(folder))
    # Without any that is durable as well.
    (folder / f'{T[2]}#0#d.data').unlink()
    fragments.reclaim(str(folder), sorted(os.listdir(folder)), T[5])
    assert sorted(os.listdir(folder)) == [f'{T[3]}.meta', f'{T[6]}#0.data']


def test_names_are_compared_without_the_own_number():
    name = f'{T[1]}#3#d.data'
    assert fragments.normal(name, 3) == fragments.normal(f'{T[1]}#1#d.data', 1) != fragments.normal(name, 2) == name
    assert fragments.normal(f'{T[1]}#3.data', 3) != fragments.normal(name, 3)
    assert fragments.normal(f'{T[1]}.ts', 3) == f'{T[1]}.ts'
    assert [fragments.is_stray(each, 3) for each in (name, f'{T[1]}#2.data', f'{T[1]}.ts')] == [False, True, False]
    assert fragments.is_stray(f'{T[1]}.ts', None)
