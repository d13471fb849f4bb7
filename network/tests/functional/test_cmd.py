"""The admin command, and the samples that are made with it."""
import contextlib
import io

import pytest

from kodiak.common import cli
from kodiak.network import cmd, conf
from kodiak.network.agent import conf as agent_conf
from kodiak.network.api import API


@pytest.fixture
def run(tmp_path):
    """``run('db', 'sync')`` gives ``(exit status, output)``."""
    file = tmp_path / 'network.conf'
    file.write_text(f'[database]\nconnection = sqlite:///{tmp_path}/network.sqlite\n')

    def call(*arguments):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = cli.Commands(cmd.NAME, cmd.load_conf, lambda: [API]).run(['--config-file', str(file), *arguments])
        return code, out.getvalue()
    return call


def test_the_database_is_made_by_the_admin_command(run):
    assert run('db', 'check')[0] == 1
    assert run('db', 'sync')[0] == 0
    assert run('db', 'check') == (0, '')


def test_there_are_few_options():
    assert sum(len(options) for options in [*conf.OPTS.values(), *agent_conf.OPTS.values()]) <= 25


def test_the_documents(run):
    assert '/v2.0/networks/{id}' in run('openapi')[1]
    assert 'PUT /v2.0/routers/{id}/add_router_interface' in run('reference')[1]
