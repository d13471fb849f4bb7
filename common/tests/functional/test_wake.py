"""Wake-ups: after the commit, once a transaction, and between the processes of a host."""
import os
import threading

import pytest

from kodiak.common import db, wake


@pytest.fixture
def databases(tmp_path):
    made = [db.Database(f'sqlite:///{tmp_path}/w.sqlite') for _ in range(2)]
    yield made
    for database in made:
        database.close()


def test_once_after_the_commit_and_never_after_a_rollback(databases):
    database, _ = databases
    rung = []
    wake.listen(database, 'saga', lambda: rung.append(1))
    with database.write() as connection:
        wake.after_commit(connection, 'saga')
        wake.after_commit(connection, 'saga')
        assert rung == []
    assert rung == [1]
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        wake.after_commit(connection, 'saga')
        raise ZeroDivisionError
    with database.write() as connection:
        wake.after_commit(connection, 'outbox')
    assert rung == [1]
    with database.write() as connection:
        wake.after_commit(connection, 'saga')
    assert rung == [1, 1]


def test_other_databases_and_those_who_left_are_not_woken(databases):
    rung = []

    def ring():
        rung.append(1)
    wake.listen(databases[0], 'saga', ring)
    wake.ring(databases[1].engine, 'saga')
    wake.forget(databases[0], 'saga', ring)
    wake.ring(databases[0].engine, 'saga')
    assert rung == []


def test_a_doorbell_reaches_the_other_process_and_does_not_echo(databases, tmp_path):
    # Two engines stand for two processes.
    api, conductor = (wake.Doorbell(str(tmp_path), 'try', database, hear=hear)
                      for database, hear in zip(databases, (False, True), strict=True))
    rung, echoed = threading.Event(), []
    wake.listen(databases[1], 'saga', rung.set)
    wake.listen(databases[0], 'saga', lambda: echoed.append(1))
    conductor.start()
    api.start()
    try:
        with databases[0].write() as connection:
            wake.after_commit(connection, 'saga')
        assert rung.wait(20)
        assert echoed == [1]
        assert len(os.listdir(tmp_path / 'try.wake')) == 1
    finally:
        api.stop()
        conductor.stop()
    assert os.listdir(tmp_path / 'try.wake') == []


def test_the_socket_of_a_dead_process_is_removed(databases, tmp_path):
    import socket
    bell = wake.Doorbell(str(tmp_path), 'try', databases[0])
    bell.ring('saga')      # there is no folder yet
    os.mkdir(tmp_path / 'try.wake')
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(tmp_path / 'try.wake' / '1.dead'))
    dead.close()
    bell.ring('saga')
    assert os.listdir(tmp_path / 'try.wake') == []
    bell.stop()
