"""Entry points of the API, the conductor and the admin command; the agent has its own in ``agent.main``."""
from kodiak.common import cli, config, policy, service, wsgi

from . import conf as options
from . import rpc
from .agent import conf as agent_options

NAME = 'network'


def load_conf(args=(), files=None):
    """The configuration of this service from command-line arguments and files; its agent reads the same file."""
    return config.load(NAME, {**agent_options.OPTS, **options.OPTS}, args=args, files=files, defaults=options.DEFAULTS)


def load(runtime):
    """The WSGI application of the API process."""
    runtime.bus = None          # hints to agents are the conductor's: the API works without a broker
    runtime.policy = policy.Enforcer(runtime.conf)
    runtime.on_reload.append(runtime.policy.reload)
    return wsgi.load(runtime)


def api():
    """``kodiak-network-api``."""
    service.run_api(NAME, load, opts=options.OPTS, defaults=options.DEFAULTS,
                    conductor=('kodiak.network.conductor', rpc.CONDUCTOR_TOPIC))


def conductor():
    """``kodiak-network-conductor``."""
    from . import conductor as made
    service.run_worker(NAME, made.build, opts=options.OPTS, defaults=options.DEFAULTS, topic=rpc.CONDUCTOR_TOPIC)


def admin():
    """``kodiak-network``."""
    from .api import API
    cli.main(cli.Commands(NAME, load_conf, lambda: [API], broker=True, root=True))
