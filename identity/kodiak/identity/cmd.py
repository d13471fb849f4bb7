"""Entry points."""
from kodiak.common import cli, config, outbox, policy, service, wsgi
from kodiak.common.runtime import Runtime

from . import conf as options
from . import core, housekeeping, notices
from .directory import watch


def load_conf(args=()):
    """The configuration of identity; ``args`` are oslo.config's."""
    return config.load('identity', options.OPTS, args=args, defaults=options.DEFAULTS)


def prepare(runtime):
    """Add to a :class:`~kodiak.common.runtime.Runtime` what identity needs in it."""
    made = core.Core(runtime.conf, runtime.db)
    runtime.extra['core'] = made
    runtime.feed = made.state
    notices.configure(runtime.db, runtime.conf)
    runtime.policy = policy.Enforcer(runtime.conf)
    runtime.bus = None
    return runtime


def build(conf, database):
    """The Runtime of a process that runs with ``conf``; for tests and the admin command."""
    return prepare(Runtime(name='identity', conf=conf, db=database))


def load(runtime):
    """The WSGI application, for :func:`kodiak.common.service.run_api`."""
    prepare(runtime)
    found = runtime.extra['core']
    runtime.background += [housekeeping.housekeeping(found), watch.watch(found)]
    if runtime.conf.notifications.topics:
        notifier = outbox.Notifier(runtime.conf, f'identity.{runtime.host}')
        runtime.background.append(outbox.Publisher(runtime, {'identity.': notifier}))
    return wsgi.load(runtime)


def api():
    """``kodiak-identity-api``."""
    service.run_api('identity', load, opts=options.OPTS, defaults=options.DEFAULTS)


def admin():
    """``kodiak-identity``."""
    from . import admin as commands
    from .api import API
    cli.main(commands.build(load_conf, lambda: [API]))
