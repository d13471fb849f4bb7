
import pytest
import sqlalchemy as sa

from kodiak.common import db
from kodiak.image import blobs, cmd, models


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    (tmp_path / 'image.conf').write_text(f'[database]\nconnection = sqlite:///{tmp_path}/image.sqlite\n')

    def run(*arguments):
        monkeypatch.setattr('sys.argv', ['kodiak-image', '--config-file', str(tmp_path / 'image.conf'), *arguments])
        with pytest.raises(SystemExit) as ended:
            cmd.admin()
        return ended.value.code, capsys.readouterr().out
    return run


def test_the_database_is_made_by_the_admin_command(run):
    assert run('db', 'check')[0] == 1
    assert run('db', 'sync')[0] == 0
    assert run('db', 'check') == (0, '')
    assert run('db', 'version')[1].strip()


def test_the_documents(run):
    assert '/v2/images/{image_id}/file' in run('openapi')[1]
    assert 'PATCH /v2/images/{image_id}' in run('reference')[1]


def test_what_is_deleted_is_scrubbed(run, tmp_path):
    (tmp_path / 'image.conf').write_text(
        f'[DEFAULT]\nstate_path = {tmp_path}\n[database]\nconnection = sqlite:///{tmp_path}/image.sqlite\n')
    assert run('db', 'sync')[0] == 0
    store = tmp_path / 'image' / 'store'
    database = db.Database(f'sqlite:///{tmp_path}/image.sqlite')
    for number, (name, after) in enumerate((('file', 0), ('file', 3600), ('gone', 0))):
        blob = f'{number}{number}' + db.new_id()[2:]
        (store / blob[:2]).mkdir(parents=True)
        (store / blob[:2] / blob).write_bytes(b'data')
        with database.write() as connection:
            connection.execute(sa.insert(models.blobs), {
                'id': blob, 'image_id': db.new_id(), 'store': name, 'state': 'live', 'lease_until': db.utcnow(),
                'created_at': db.utcnow()})
            blobs.doom(connection, models.blobs.c.id == blob, after)
    database.close()
    code, said = run('scrub')
    assert code == 0 and said.splitlines()[-1] == 'removed 1, waiting 2' and 'in the store gone' in said
    assert sorted(path.name[0] for path in store.glob('*/*')) == ['1', '2']
    # What is in a store that is not configured any more can wait for it.
    assert run('scrub', '--now')[1].splitlines()[-1] == 'removed 1, waiting 1'
    assert [path.name[0] for path in store.glob('*/*')] == ['2']


def test_what_is_not_there_is_not_restored(run):
    assert run('db', 'sync')[0] == 0
    assert 'was not deleted lately' in run('scrub', '--restore', 'x')[0]
