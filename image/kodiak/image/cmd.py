"""Entry points: the API process and the admin command."""
from kodiak.common import cli, config, policy, saga, service, wake, wsgi

from . import blobs, imports, stores
from . import conf as options

NAME = 'image'


def load_conf(args=(), files=None):
    """The configuration of this service from command-line arguments and files."""
    conf = config.load(NAME, options.OPTS, args=args, files=files, defaults=options.DEFAULTS)
    stores.register(conf)
    return conf


def prepare(runtime):
    """Give a process's Runtime what this service needs. Nothing is started yet."""
    if runtime.policy is None:
        runtime.policy = policy.Enforcer(runtime.conf)
    runtime.extra['stores'] = stores.Stores(runtime.conf)
    runtime.extra['stores'].prepare()
    keeper = blobs.Keeper(runtime.db, runtime.extra['stores'])
    wake.listen(runtime.db, blobs.WAKE, keeper.nudge)
    runtime.background += [keeper, saga.Worker(runtime, imports.SAGAS, threads=runtime.conf.imports.threads)]
    return runtime


def load(runtime):
    """The WSGI application of the API process."""
    prepare(runtime)
    runtime.on_reload.append(runtime.policy.reload)
    return wsgi.load(runtime)


def api():
    """``kodiak-image-api``."""
    service.run_api(NAME, load, opts=options.OPTS, defaults=options.DEFAULTS)


def admin():
    """``kodiak-image``."""
    from .api import API
    cli.main(cli.Commands(NAME, load_conf, lambda: [API]))
