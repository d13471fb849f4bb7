"""The processes of compute, and its admin command."""
from kodiak.common import authtoken, cli, config, policy, service, wsgi
from kodiak.compute import conf as options

CONDUCTOR, TOPIC = 'kodiak.compute.conductor', 'compute-conductor'


def load_conf(args=()):
    """The whole configuration of compute, as its admin command reads it: every process has its part of it."""
    from kodiak.compute.agent import conf as agent
    from kodiak.compute.console import conf as console
    opts = {**options.OPTS, **agent.OPTS, **console.OPTS}
    return config.load('compute', opts, args=args, defaults=options.DEFAULTS)


def load_api(app):
    """The WSGI application of an API process."""
    # Version documents and the OpenAPI document need no token, so the decision is each endpoint's.
    app.conf.set_default('delay_auth_decision', True, authtoken.GROUP)
    app.policy = policy.Enforcer(app.conf)
    app.on_reload.append(app.policy.reload)
    return wsgi.load(app)


def api():
    """kodiak-compute-api"""
    service.run_api('compute', load_api, opts=options.OPTS, defaults=options.DEFAULTS, conductor=(CONDUCTOR, TOPIC))


def conductor():
    """kodiak-compute-conductor"""
    from kodiak.compute import conductor as made
    service.run_worker('compute', made.build, opts=options.OPTS, defaults=options.DEFAULTS, topic=TOPIC)


def admin():
    """kodiak-compute"""
    def apis():
        from kodiak.compute import api as made
        return made.apis()
    commands = cli.Commands('compute', load_conf, apis, broker=True)
    cli.main(commands)
