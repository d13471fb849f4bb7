import pathlib

import pytest

from kodiak.image import cmd, conf

ETC = pathlib.Path(cmd.__file__).parents[2] / 'etc'


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


def test_the_samples_are_those_of_the_code(run):
    assert run('policy-sample') == (0, (ETC / 'policy.yaml.sample').read_text())
    sample = (ETC / 'image.conf.sample').read_text()
    for group, options in conf.OPTS.items():
        assert f'[{group}]\n' in sample
        for option in options:
            assert f'\n#{option.dest} = ' in sample
    assert '[store_file]' in sample


def test_the_documents(run):
    assert '/v2/images/{image_id}/file' in run('openapi')[1]
    assert 'PATCH /v2/images/{image_id}' in run('reference')[1]
