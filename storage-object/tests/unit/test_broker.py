"""The databases: listings against a plain model, and merging in whatever order."""
import itertools
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodiak.storage_object.backend.broker import Accounts, Brokers, Containers, Corrupt
from kodiak.storage_object.backend.containers import deletion
from kodiak.storage_object.backend.devices import Devices
from kodiak.storage_object.backend.replication import summary
from kodiak.storage_object.spans import successor

RULES = settings(max_examples=150, deadline=None, derandomize=True,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
DIGEST = 'ab' * 16


def stamp(number):
    return f'{number:010d}.00000'


def row(name, at=1, changed=None, size=1, etag='e', kind='t'):
    return (0, name, stamp(at), stamp(changed or at), size, etag, kind, 0)


@pytest.fixture
def brokers(tmp_path):
    (tmp_path / 'd').mkdir()
    made = Brokers(Devices(str(tmp_path)))
    yield made
    made.close()


def make(brokers, kind=Containers, name='one'):
    device = f'{brokers.devices.root}/d'
    path = Brokers.path(device, kind.kind, 7, (name.encode().hex() + DIGEST)[:32])
    kind.create(path, device, 'a', 'c', stamp(1), brokers.devices.temporary(device))
    broker = brokers.get(kind.kind, path)
    broker.update(put=stamp(1))
    return broker


ALPHABET = st.text('a/b~\U0001f600', min_size=1, max_size=6)


def model(names, prefix='', delimiter='', marker='', end='', reverse=False, path=None, limit=100):
    """What a listing should be, slowly."""
    if path is not None:
        prefix, delimiter = (path.rstrip('/') + '/' if path else ''), '/'
    low, high = (end, marker) if reverse else (marker, end)
    out = []
    for name in sorted(set(names), key=lambda text: text.encode(), reverse=reverse):
        if not name.startswith(prefix) or (low and name <= low) or (high and name >= high):
            continue
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0 or (path is not None and cut == len(name) - 1):
            if path is None or name != prefix:
                out.append(name)
            continue
        group = name[:cut + len(delimiter)]
        if path is None and group not in out and not (low and not reverse and group <= low) and not (high and group >= high):
            out.append(group)
    return out[:limit]


@RULES
@given(st.lists(ALPHABET, max_size=25), st.sampled_from(['', 'a', 'a/', '/', 'b~']), st.sampled_from(['', '/', '~', 'a/']),
       st.just('') | ALPHABET, st.just('') | ALPHABET, st.booleans(), st.sampled_from([None, None, '', 'a', 'a/']),
       st.sampled_from([1, 2, 100]))
def test_listings(tmp_path_factory, names, prefix, delimiter, marker, end, reverse, path, limit):
    folder = tmp_path_factory.mktemp('d')
    (folder / 'd').mkdir()
    brokers = Brokers(Devices(str(folder)))
    try:
        broker = make(brokers)
        broker.put([row(name) for name in names] + [deletion('gone', stamp(3), 0)])
        found = [each[0] for each in broker.listing(('name', 'size'), limit, marker, end, prefix, delimiter, reverse, path)]
        assert found == model(names, prefix, delimiter, marker, end, reverse, path, limit)
        assert broker.info()['count'] == len(set(names))
    finally:
        brokers.close()


CHANGES = [row('o', 1, size=5), row('o', 3, size=7, etag='f'), row('o', 1, changed=4, kind='u'), deletion('o', stamp(2), 0),
           deletion('o', stamp(5), 0), row('p', 2, size=1), row('p', 2, changed=6, kind='v')]


@pytest.mark.parametrize('count', [2, 3, 4])
def test_the_order_of_changes_does_not_matter(brokers, count):
    for number, chosen in enumerate(itertools.combinations(CHANGES, count)):
        seen = set()
        for place, order in enumerate(itertools.permutations(chosen)):
            if place % 5:
                continue
            broker = make(brokers, name=f'{number}-{place}')
            for change in order:
                broker.put([change])
            info = broker.info()
            listed = broker.listing(('name', 'stamp', 'changed', 'size', 'etag'), 10)
            assert (info['count'], info['bytes']) == (len(listed), sum(each[3] for each in listed))
            seen.add((info['digest'], tuple(listed)))
        assert len(seen) == 1, chosen


def test_two_databases_that_exchange_their_rows_say_the_same(brokers):
    one, two = make(brokers, name='1'), make(brokers, name='2')
    one.put([row('a', 1), row('b', 2), row('c', 1)])
    two.put([row('a', 2), deletion('b', stamp(3), 0), row('d', 1)])
    for _ in range(2):
        for source, target in ((one, two), (two, one)):
            info = source.info()
            rows = source.later(target.known(info['id']))
            target.put([each[:-1] for each in rows], source=(info['id'], info['seq']))
    assert summary(one.info()) == summary(two.info())
    assert [name for name, _ in one.listing(('name', 'size'), 10)] == ['a', 'c', 'd']
    assert one.later(two.known(one.info()['id'])) == []


def test_accounts_keep_the_newest_of_what_containers_tell(brokers):
    broker = make(brokers, Accounts)
    broker.put([(0, 'c', stamp(1), stamp(0), 5, 50, 0, stamp(2))])
    broker.put([(0, 'c', stamp(1), stamp(0), 9, 90, 0, stamp(1))])
    info = broker.info()
    assert (info['count'], info['objects'], info['bytes']) == (1, 5, 50)
    assert broker.policies() == {0: (1, 5, 50)}
    broker.put([(1, 'c', stamp(1), stamp(3), 0, 0, 0, stamp(4))])
    assert broker.info()['count'] == 0 and broker.listing(('name', 'bytes'), 10) == []
    broker.put([(0, 'c', stamp(5), stamp(0), 0, 0, 0, stamp(6))])
    assert broker.info()['count'] == 1


def test_metadata_and_deletion(brokers):
    broker = make(brokers)
    broker.update(metadata={'A': ['1', stamp(2)], 'B': ['1', stamp(9)]})
    broker.update(metadata={'A': ['old', stamp(1)]})
    assert broker.info()['metadata']['A'] == ['1', stamp(2)]
    broker.update(delete=stamp(5))
    info = broker.info()
    assert broker.is_deleted(info) and info['metadata'] == {'A': ['', stamp(2)], 'B': ['1', stamp(9)]}
    broker.reclaim(stamp(8))
    assert list(broker.info()['metadata']) == ['B']
    broker.put([row('o', 6)])
    assert not broker.is_deleted(broker.info())


def test_marks_of_deletions_are_reclaimed(brokers):
    broker = make(brokers)
    broker.put([deletion('a', stamp(2), 0), deletion('b', stamp(9), 0)])
    broker.reclaim(stamp(5))
    assert [each[1] for each in broker.later(0)] == ['b']


def test_a_damaged_file_is_put_away(brokers):
    broker = make(brokers)
    broker.put([row(f'o{number}') for number in range(500)])
    told = []
    brokers.on_corrupt = lambda *what: told.append(what)
    brokers.close()
    with open(broker.path, 'r+b') as file:
        file.seek(4096)
        file.write(b'\xff' * 12288)
    again = brokers.get('container', broker.path)
    with pytest.raises(Corrupt):
        again.check()
        again.listing(('name', 'size'), 1000)
    brokers.damaged('container', broker.path, 'test')
    assert brokers.get('container', broker.path) is None
    assert told == [('container', 'd', broker.path)]


def test_a_file_that_was_exchanged_is_opened_again(brokers, tmp_path):
    broker = make(brokers)
    (tmp_path / 'd').rename(tmp_path / 'e')
    assert brokers.get('container', broker.path) is None
    (tmp_path / 'e').rename(tmp_path / 'd')
    again = brokers.get('container', broker.path)
    assert again is not broker and again.info()['account'] == 'a'
    with pytest.raises(sqlite3.ProgrammingError):
        broker.connection.execute('SELECT 1')


def test_few_files_are_open_at_once(brokers):
    brokers.limit = 3
    made = [make(brokers, name=f'n{number}') for number in range(6)]
    assert len(brokers._open) == 3
    assert brokers.get('container', made[0].path).info()['account'] == 'a'


@pytest.mark.parametrize('text,after', [('a', 'b'), ('a/', 'a0'), ('\ud7ff', '\ue000'), ('a\U0010ffff', 'b'), ('\U0010ffff', None)])
def test_successor(text, after):
    assert successor(text) == after
