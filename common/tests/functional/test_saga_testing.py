"""The generic saga tests find what they are there to find, and pass a saga that is as it should be."""
import pytest

from kodiak.common import db, errors, saga, saga_testing
from kodiak.common.runtime import Runtime


def make_port(work):
    work.app.extra['ports'].add(work.resource_id)
    return {'port': work.resource_id}


def remove_port(work):
    work.app.extra['ports'].discard(work.resource_id)


def wait_for_guest(work):
    if work.resource_id not in work.app.extra['guests']:
        work.app.extra['asked'].add(work.resource_id)
        raise saga.Wait(30, 'the guest')


def remove_guest(work):
    work.app.extra['asked'].discard(work.resource_id)
    work.app.extra['guests'].discard(work.resource_id)


def activate(work):
    work.in_commit(lambda connection: work.app.extra['states'].__setitem__(work.resource_id, 'ACTIVE'))


def tell(work, error):
    work.app.extra['states'][work.resource_id] = 'ERROR: ' + error.message


GOOD = saga.Saga('boot', [saga.Step('port', make_port, remove_port), saga.Step('guest', wait_for_guest, remove_guest),
                          saga.Step('active', activate, lambda work: None)], on_failure=tell)


class Boot(saga_testing.Scenario):
    def __init__(self, folder, kind=GOOD):
        self.saga = kind
        metadata = db.metadata()
        saga.tables(metadata)
        self.app = Runtime('test', None, db=db.Database(f'sqlite:///{folder}/s.sqlite'), extra={
            'ports': set(), 'guests': set(), 'asked': set(), 'states': {}})
        metadata.create_all(self.app.db.engine)

    def start(self):
        with self.app.db.write() as connection:
            saga.start(connection, self.saga, 'r1')
        return 'r1'

    def outside(self):
        self.app.extra['guests'] |= self.app.extra['asked']
        with self.app.db.write() as connection:
            saga.nudge(connection, 'r1')

    def succeeded(self):
        assert self.app.extra['ports'] == {'r1'}
        assert self.app.extra['guests'] == {'r1'}
        assert self.app.extra['states'] == {'r1': 'ACTIVE'}

    def failed(self, step):
        assert not self.app.extra['ports']
        assert not self.app.extra['guests']
        assert self.app.extra['states']['r1'].startswith('ERROR: ')


@pytest.mark.parametrize('case', saga_testing.cases(GOOD), ids=str)
def test_a_good_saga_passes(case, tmp_path):
    saga_testing.run(case, Boot(tmp_path))


def broken(tmp_path, kind):
    found = []
    for number, case in enumerate(saga_testing.cases(kind)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            saga_testing.run(case, Boot(folder, kind))
        except AssertionError:
            found.append(str(case))
    return found


def test_a_step_that_is_not_idempotent_is_found(tmp_path):
    def once(work):
        if work.resource_id in work.app.extra['ports']:
            raise errors.Conflict('it exists')
        make_port(work)
    kind = saga.Saga('boot', [saga.Step('port', once, remove_port), *GOOD.steps[1:]], on_failure=tell)
    assert broken(tmp_path, kind) == ['crash-do-after-port']


def test_a_missing_undo_is_found(tmp_path):
    kind = saga.Saga('boot', [saga.Step('port', make_port), *GOOD.steps[1:]], on_failure=tell)
    found = broken(tmp_path, kind)
    assert 'fail-after-port' in found
    assert 'abort-before-guest' in found


def test_an_undo_that_needs_the_output_of_its_do_is_found(tmp_path):
    def remove(work):
        work.app.extra['ports'].discard(work.data['port'])
    kind = saga.Saga('boot', [saga.Step('port', make_port, remove), *GOOD.steps[1:]], on_failure=tell)
    assert broken(tmp_path, kind) == ['fail-before-port', 'fail-after-port']
