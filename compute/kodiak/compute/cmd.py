"""The processes of compute, and its admin command."""
from kodiak.common import cli, config, policy, service, wsgi
from kodiak.compute import conf as options
from kodiak.compute import rpc

CONDUCTOR = 'kodiak.compute.conductor'


def load_conf(args=()):
    """The whole configuration of compute, as its admin command reads it: every process has its part of it."""
    from kodiak.compute.agent import conf as agent
    from kodiak.compute.console import conf as console
    opts = {**options.OPTS, **agent.OPTS, **console.OPTS}
    return config.load('compute', opts, args=args, defaults=options.DEFAULTS)


def load(app):
    """The WSGI application of an API process."""
    app.policy = policy.Enforcer(app.conf)
    app.on_reload.append(app.policy.reload)
    return wsgi.load(app)


def api():
    """kodiak-compute-api"""
    service.run_api('compute', load, opts=options.OPTS, defaults=options.DEFAULTS, conductor=(CONDUCTOR, rpc.CONDUCTOR_TOPIC))


def conductor():
    """kodiak-compute-conductor"""
    from kodiak.compute import conductor as made
    service.run_worker('compute', made.build, opts=options.OPTS, defaults=options.DEFAULTS, topic=rpc.CONDUCTOR_TOPIC)


def admin():
    """kodiak-compute"""
    def apis():
        from kodiak.compute import api as made
        return made.apis()
    commands = cli.Commands('compute', load_conf, apis, broker=True)
    commands.add('purge', _purge, 'Remove what is kept of servers that were deleted long ago: their rows and the record of their '
                 'actions. Reports of usage leave them out from then on.', [
                     (['--days'], {'type': int, 'default': 90, 'help': 'only servers deleted more than so many days ago (90)'}),
                     (['--dry-run'], {'action': 'store_true', 'help': 'count them only'})])
    cli.main(commands)


def _purge(conf, options):
    from kodiak.common.db import Database
    from kodiak.compute import purge
    if options.days < 0:
        print('--days: 0 or more')
        return 2
    database = Database(config.database_url(conf, 'compute'), pool_size=1)
    count = purge.purge(database, options.days, options.dry_run)
    database.close()
    print(f'{count} deleted servers ' + ('would be removed.' if options.dry_run else 'were removed.'))
    return 0
