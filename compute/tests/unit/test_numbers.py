"""Budgets of the service that can be counted."""
import pathlib
import subprocess
import sys

import kodiak.compute
from kodiak.compute import conf
from kodiak.compute.agent import conf as agent
from kodiak.compute.console import conf as console


def test_options():
    options = [option for opts in (conf.OPTS, agent.OPTS, console.OPTS) for group in opts.values() for option in group]
    assert len(options) <= 25 and all(option.help for option in options)


def test_files_are_rooms_not_halls():
    root = pathlib.Path(kodiak.compute.__path__[0])
    long = {str(path.relative_to(root)): lines for path in root.rglob('*.py') if 'migrations' not in path.parts
            and (lines := len(path.read_text().splitlines())) > 600}
    assert long == {}


def test_an_agent_loads_no_database():
    loaded = subprocess.run([sys.executable, '-c', 'import sys, kodiak.compute.agent.main; print(*sys.modules)'],
                            capture_output=True, text=True, check=True).stdout.split()
    assert not {'sqlalchemy', 'flask', 'alembic', 'oslo_messaging', 'eventlet'} & set(loaded)
