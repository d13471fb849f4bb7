"""The console proxy: serves noVNC to browsers, and relays websockets to the consoles of guests.

Who opens a websocket shows a token, which the API gave to the owner of the server and which the conductor redeems: a token
for a graphical console once, one for a serial console until it expires. The proxy holds no secret and no database.
"""
import urllib.parse

# Before anything that hides eventlet from this process.
from kodiak.common import greensockets  # isort: skip
from kodiak.common import context, errors, periodic
from kodiak.compute import rpc

BEAT = 10       # seconds between two signs of life


class Finder:
    """Finds the console that a websocket leads to; called by :class:`greensockets.Relay`.

    :param conductor: the RPC client of :data:`kodiak.compute.rpc.CONDUCTOR`.
    """

    def __init__(self, conductor):
        self.conductor = conductor

    def __call__(self, request):
        """The target of a request.

        :raises errors.Forbidden: without a token that is good now.
        """
        token = token_of(request)
        if not token:
            raise errors.Forbidden('There is no token in the request.')
        found = self.conductor.call('console_token', context.background(), token=token)
        if found is None:
            raise errors.Forbidden('The token is unknown, used or expired.')
        name = f'the {found["console_type"]} console of {found["instance_uuid"]}'
        # The door of an agent is told its ticket in a request line, and is the console itself from there on.
        say = f'GET {found["path"]} HTTP/1.1\r\n\r\n'.encode() if found.get('path') else b''
        return greensockets.Target(host=found['host'], port=found['port'], say=say, name=name)


def token_of(request):
    """The token in a request: in its query (also within noVNC's ``path``), or in a cookie, as older clients send it."""
    if 'token' in request.query:
        return request.query['token']
    inner = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.query.get('path', '')).query))
    return inner.get('token') or request.cookies.get('token')


def heartbeat(conductor, said):
    """Has the conductor write down that this process lives."""
    return periodic.Periodic('heartbeat', lambda: conductor.call('alive', context.background(), **said), BEAT,
                             at_once=True, expected=Exception)


def build(app):
    """Make the proxy out of a Runtime (``service.run_worker``)."""
    options = app.conf.console
    conductor = app.bus.client(rpc.CONDUCTOR, rpc.CONDUCTOR_TOPIC)
    find = Finder(conductor)
    app.background.append(heartbeat(conductor, {'host': app.host, 'binary': app.binary, **app.about()}))
    app.background.append(greensockets.Relay((options.bind_host, options.bind_port), find, static=options.novnc_path,
                                             origins=options.allowed_origins))


def main():
    """``kodiak-compute-console``."""
    from kodiak.common import service
    from kodiak.compute.console.conf import OPTS
    service.run_worker('compute', build, opts=OPTS, binary='kodiak-compute-console', database=False)
