"""Which console a websocket leads to. In a process of its own: this one does without eventlet."""
import subprocess
import sys

PROGRAM = """
import queue
import pytest
from kodiak.compute.console import proxy
from kodiak.common import errors, greensockets, rpc
from kodiak.compute import rpc as tables

class Conductor:
    tokens = {
        'screen': {'instance_uuid': 'u', 'console_type': 'novnc', 'host': 'h', 'port': 5900, 'path': None, 'password': None},
        'line': {'instance_uuid': 'u', 'console_type': 'serial', 'host': 'h', 'port': 6083, 'path': '/serial/t', 'password': None}}

    def console_token(self, context, token):
        return self.tokens.get(token)

    def alive(self, context, **said):
        heard.put(said)

    def __getattr__(self, name):
        return lambda *args, **kwargs: None

heard = queue.Queue()
bus = rpc.Bus.in_memory()
find = proxy.Finder(bus.client(tables.CONDUCTOR, tables.CONDUCTOR_TOPIC))

def request(query=None, cookies=None):
    return greensockets.Request('/', query or {}, cookies or {}, {}, '')

with pytest.raises(errors.Unavailable):
    find(request({'token': 'screen'}))
bus.serve(tables.CONDUCTOR, Conductor(), tables.CONDUCTOR_TOPIC)
for asked in (request({'token': 'screen'}), request({'path': '?token=screen'}), request({'path': 'websockify?token=screen'}),
              request(cookies={'token': 'screen'})):
    target = find(asked)
    assert (target.host, target.port, target.say) == ('h', 5900, b'')
assert find(request({'token': 'line'})).say == b'GET /serial/t HTTP/1.1\\r\\n\\r\\n'
for asked in (request(), request({'token': 'other'}), request({'token': ''}, {'token': ''}), request({'path': '?x=1'})):
    with pytest.raises(errors.Forbidden):
        find(asked)
said = {'host': 'one', 'binary': 'kodiak-compute-console', 'version': '7.1', 'started_at': '2026-01-02T03:04:05'}
beat = proxy.heartbeat(bus.client(tables.CONDUCTOR, tables.CONDUCTOR_TOPIC), said)
beat.start()
assert heard.get(timeout=20) == said
beat.stop()
print('good')
"""


def test_tokens_lead_to_consoles():
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == 'good\n', done.stderr
