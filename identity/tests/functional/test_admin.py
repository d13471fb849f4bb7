import datetime
import io
import stat
import tarfile

import pytest

from kodiak.common import cli, db
from kodiak.identity import admin, api, cmd, core
from kodiak.identity import conf as options

URL = 'http://10.0.0.1:5000/v3'


@pytest.fixture
def run(tmp_path, capsys):
    """Runs ``kodiak-identity`` with arguments; returns its status and what it printed."""
    config = tmp_path / 'identity.conf'
    config.write_text(f'[DEFAULT]\nstate_path = {tmp_path}\n[database]\nconnection = sqlite:///{tmp_path}/i.sqlite\n'
                      '[identity]\nargon2_memory = 8192\n')

    def run(*arguments):
        status = admin.build(cmd.load_conf, lambda: [api.API]).run(['--config-file', str(config), *arguments])
        return status, capsys.readouterr().out
    run.folder = tmp_path
    return run


@pytest.fixture
def ready(run, monkeypatch):
    """As ``run``, migrated and bootstrapped with the password ``first``."""
    monkeypatch.setenv('OS_BOOTSTRAP_PASSWORD', 'first')
    run('db', 'sync')
    assert run('bootstrap', '--public-url', URL)[0] == 0
    run('keys', 'setup')
    return run


def test_there_are_not_too_many_options():
    assert sum(len(listed) for listed in options.OPTS.values()) <= 29


def test_bootstrap_again_repairs_and_resets_nothing(ready, monkeypatch):
    assert ready('bootstrap', '--public-url', URL) == (0, '')
    assert 'Moved the public' in ready('bootstrap', '--public-url', 'http://10.0.0.2:5000/v3')[1]
    monkeypatch.setenv('OS_BOOTSTRAP_PASSWORD', 'second')
    assert ready('bootstrap', '--public-url', 'http://10.0.0.2:5000/v3') == (0, 'Set the password of user admin.\n')


def test_bootstrap_needs_a_password(run, monkeypatch):
    monkeypatch.delenv('OS_BOOTSTRAP_PASSWORD', raising=False)
    monkeypatch.setattr('sys.stdin', io.StringIO())
    run('db', 'sync')
    assert run('bootstrap', '--public-url', URL)[0] == 2


def test_the_password_can_come_from_standard_input(run, monkeypatch):
    monkeypatch.delenv('OS_BOOTSTRAP_PASSWORD', raising=False)
    monkeypatch.setattr('sys.stdin', io.StringIO('from a pipe\n'))
    run('db', 'sync')
    assert run('bootstrap', '--public-url', URL)[0] == 0


def test_keys(ready):
    folder = ready.folder / 'identity' / 'keys'
    assert stat.S_IMODE((folder / 'current.pem').stat().st_mode) == 0o600
    _, listed = ready('keys', 'list')
    assert len(listed.splitlines()) == 2
    assert 'signs now' in ready('keys', 'rotate')[1]
    assert len(ready('keys', 'list')[1].splitlines()) == 3
    assert ready('keys', 'revoke')[0] == 2
    assert ready('keys', 'revoke', 'nothing')[0] == 1
    assert 'is revoked' in ready('keys', 'revoke', listed.split()[0])[1]
    assert ready('credential-keys', 'rotate')[0] == 0
    assert ready('clear')[0] == 0


@pytest.fixture
def servers(tmp_path, monkeypatch, capsysbinary):
    """Two servers with a database and folders of their own, as ``first(*arguments)`` and ``second(*arguments)``."""
    def server(name):
        folder = tmp_path / name
        folder.mkdir()
        config = folder / 'identity.conf'
        config.write_text(f'[DEFAULT]\nstate_path = {folder}\n[database]\nconnection = sqlite:///{tmp_path}/i.sqlite\n')

        def run(*arguments, given=b''):
            monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(given)))
            status = admin.build(cmd.load_conf, lambda: [api.API]).run(['--config-file', str(config), *arguments])
            return status, capsysbinary.readouterr()
        run.core = core.Core(cmd.load_conf(['--config-file', str(config)]), None)
        run.folder = folder / 'identity'
        return run
    first, second = server('first'), server('second')
    first('db', 'sync')
    first('keys', 'setup')
    return first, second


def listing(server):
    return server('keys', 'list')[1].out


def copy(source, target, *more):
    return target('keys', 'import', *more, given=source('keys', 'export')[1].out)


def test_servers_have_the_same_keys(servers):
    first, second = servers
    assert copy(first, second)[0] == 0
    assert listing(second) == listing(first) and second.core.ring.signing()[0] == first.core.ring.signing()[0]
    assert second.core.crypt.decrypt(first.core.crypt.encrypt('secret')) == 'secret'
    for path in ('keys', 'credential-keys'):
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (second.folder / path).iterdir())
    # Between a rotation and its copy each server's tokens and credentials are good at the other.
    first('keys', 'rotate')
    first('credential-keys', 'rotate')
    assert first.core.ring.signing()[0] in second.core.ring.public()
    assert second.core.ring.signing()[0] in first.core.ring.public()
    assert second.core.crypt.decrypt(first.core.crypt.encrypt('secret')) == 'secret'
    assert first.core.crypt.decrypt(second.core.crypt.encrypt('secret')) == 'secret'
    assert copy(first, second)[0] == 0 and listing(second) == listing(first)
    assert {file.name for file in (second.folder / 'credential-keys').iterdir()} == {'0', '1', 'next'}


def test_a_key_that_was_revoked_elsewhere_signs_no_more(servers):
    first, second = servers
    copy(first, second)
    leaked, coming = (key_id for _, key_id in first.core.ring.listing())
    assert first('keys', 'revoke', leaked)[0] == 0
    assert first.core.ring.signing()[0] == coming
    found = core.Core(second.core.conf, db.Database(second.core.conf.database.connection))
    found.state.look()
    assert found.ring.signing(found.state.revoked_keys)[0] == coming
    found.db.close()
    assert copy(first, second)[0] == 0 and listing(second) == listing(first)


def test_keys_of_another_cloud_are_taken_only_if_that_is_said(servers):
    first, second = servers
    second('keys', 'setup')
    status, said = copy(first, second)
    assert status == 1 and b'--replace' in said.err and listing(second) != listing(first)
    assert copy(first, second, '--replace')[0] == 0 and listing(second) == listing(first)


@pytest.mark.parametrize('name', ['keys/../../evil.pem', '/keys/current.pem', 'keys/current.pem.tmp', 'other/next.pem', None])
def test_what_is_no_archive_of_keys_is_refused(servers, name):
    out = io.BytesIO()
    if name:
        with tarfile.open(fileobj=out, mode='w') as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    status, said = servers[1]('keys', 'import', given=out.getvalue() or b'no tar')
    assert status == 1 and b'key' in said.err and not servers[1].folder.exists()


def test_a_database_is_brought_up_in_two_steps_too(run):
    assert run('db', 'expand')[0] == 0
    assert run('db', 'contract')[0] == 0        # nothing is taken away yet
    assert run('db', 'check')[0] == 0


def test_doctor(run, ready):
    assert ready('doctor') == (0, 'Nothing is wrong.\n')
    (ready.folder / 'identity' / 'keys' / 'current.pem').chmod(0o644)
    status, said = ready('doctor')
    assert status == 1 and 'chmod go= ' in said


def test_doctor_asks_identity_providers(ready):
    from kodiak.common import db
    from kodiak.identity import models
    database = db.Database(f'sqlite:///{ready.folder}/i.sqlite')
    with database.write() as connection:
        for name, enabled in (('corp', True), ('away', True), ('old', False)):
            connection.execute(models.identity_providers.insert().values(id=name, domain_id='default', enabled=enabled))
            connection.execute(models.protocols.insert().values(idp_id=name, id='openid', mapping_id='m'))
    database.close()
    config = ready.folder / 'identity.conf'
    config.write_text(config.read_text() + '[idp_away]\nissuer = http://127.0.0.1:9\nclient_id = kodiak\n')
    status, said = ready('doctor')
    assert status == 1 and 'away, protocol openid: The identity provider http://127.0.0.1:9 cannot be reached.' in said
    assert 'corp, protocol openid: ' in said and '[idp_corp] issuer' in said and 'old' not in said


def test_doctor_of_an_empty_installation(run):
    status, said = run('doctor')
    assert status == 1 and 'keys setup' in said and 'db sync' in said


def test_the_documents_follow_from_the_declarations(run):
    assert '"openapi": "3.1.0"' in run('openapi')[1]
    assert 'GET /v3/users' in run('reference')[1]
    assert cli.policy_sample([api.API]).count('\n#"identity:') > 150


def test_a_mapping_can_be_tried(run):
    (run.folder / 'rules.json').write_text('[{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "UserName"}]}]')
    (run.folder / 'input').write_text('UserName: ann\nother: x:y\n')
    status, said = run('mapping-test', str(run.folder / 'rules.json'), str(run.folder / 'input'))
    assert status == 0 and '"name": "ann"' in said
    (run.folder / 'input').write_text('other: x\n')
    assert run('mapping-test', str(run.folder / 'rules.json'), str(run.folder / 'input'))[0] == 1


def test_trusts_that_have_ended_can_be_removed(ready):
    import sqlalchemy as sa

    from kodiak.common import db
    from kodiak.identity import models
    database, now, day = db.Database(f'sqlite:///{ready.folder}/i.sqlite'), db.utcnow(), datetime.timedelta(days=1)

    def ids():
        with database.read() as connection:
            return set(connection.execute(sa.select(models.trusts.c.id)).scalars())
    ended = {'kept': {}, 'coming': {'expires_at': now + day}, 'expired': {'expires_at': now - day},
             'deleted': {'deleted_at': now - day},
             'old': {'deleted_at': now - 9 * day}, 'of p': {'deleted_at': now - day, 'project_id': 'p'}}
    with database.write() as connection:
        for name, values in ended.items():
            connection.execute(models.trusts.insert().values(
                id=name, trustor_id='a', trustee_id='b', impersonation=False, role_ids=[], extra={}, **values))
    assert ready('trust-flush', '--date', 'soon')[0] == 2
    assert ready('trust-flush', '--date', (now - 5 * day).strftime('%d-%m-%Y'))[1].startswith('1 trusts') and 'old' not in ids()
    assert ready('trust-flush', '--project-id', 'p')[0] == 0 and ids() == {'kept', 'coming', 'expired', 'deleted'}
    assert ready('trust-flush', '--trustee-user-id', 'a')[0] == 0 and len(ids()) == 4
    assert ready('trust-flush', '--trustor-user-id', 'a', '--trustee-user-id', 'b')[0] == 0 and ids() == {'kept', 'coming'}
    database.close()
