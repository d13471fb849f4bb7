"""What a process need not carry is not imported."""
import subprocess
import sys


def test_an_agent_carries_no_database():
    code = ('import sys\nfrom kodiak.common import config, log, privileged, reconcile, rpc, service\n'
            'service.make_runtime("network", "agent", config.load("network", files=[]), database=False)\n'
            'print([name for name in ("sqlalchemy", "alembic", "flask", "eventlet") if sys.modules.get(name)])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
