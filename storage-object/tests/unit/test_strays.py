"""What a container's database knows of objects in other policies than its own."""
import pytest

from kodiak.storage_object.backend.broker import Containers
from kodiak.storage_object.backend.devices import later

T = [f'{second:010d}.00000' for second in range(10)]


@pytest.fixture
def make(tmp_path):
    made = []

    def create(account='a', policy=0):
        path = str(tmp_path / f'{len(made)}.db')
        Containers.create(path, str(tmp_path), account, 'c', T[1], str(tmp_path / 'tmp' / 'new'), policy)
        made.append(Containers(path))
        made[-1].update(put=T[1])
        return made[-1]
    yield create
    for broker in made:
        broker.close()


def row(name, stamp, policy, deleted=0):
    return deleted, name, stamp, stamp, 1, 'e', 't', policy


def test_rows_of_another_policy_are_strays(make):
    broker = make()
    broker.put([row('mine', T[2], 0), row('other', T[2], 1), row('gone', T[3], 1, 1)])
    assert broker.strays() == [('gone', 1, T[3], 1), ('other', 1, T[2], 0)]
    # Also one that does not hold, as something newer is there: it is on some device all the same.
    broker.put([row('mine', T[1], 2)])
    assert ('mine', 2, T[1], 0) in broker.strays()
    # The newest of a policy is the one to move; an older one does not come back.
    broker.put([row('other', T[4], 1)])
    broker.put([row('other', T[2], 1)])
    assert ('other', 1, T[4], 0) in broker.strays() and len(broker.strays()) == 3


def test_what_has_changed_meanwhile_is_not_forgotten(make):
    broker = make()
    broker.put([row('o', T[2], 1), row('p', T[2], 1)])
    queued = broker.strays()
    broker.put([row('o', T[3], 1)])
    broker.forget_strays(queued)
    assert broker.strays() == [('o', 1, T[3], 0)]


def test_another_policy_makes_strays_of_what_is_there(make):
    broker = make(policy=1)
    broker.put([row('o', T[2], 1), row('gone', T[4], 1, 1), row('long gone', T[2], 1, 1)])
    assert broker.strays() == []
    broker.update(delete=T[3])
    broker.update(put=T[5], policy=0)
    assert broker.strays() == [('gone', 1, T[4], 1), ('o', 1, T[2], 0)]


def test_accounts_of_our_own_have_none(make):
    broker = make('.expiring_objects', policy=1)
    broker.put([row('o', T[2], 0)])
    broker.update(put=T[5], policy=0)
    assert broker.strays() == []


def test_a_moved_object_is_newer_than_it_was_and_older_than_any_change():
    assert T[2] < later(T[2], 1) < later(T[2], 2) < later(later(T[2], 2), 1) < '0000000002.00001'
    assert later(T[2], 1) == T[2] + '_0000000000000001'
