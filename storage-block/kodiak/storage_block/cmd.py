"""Entry points of the API, the conductor and the admin command; the agent has its own in ``agent.main``."""
import os
import sys

from kodiak.common import cli, config, policy, service, wsgi

from . import audit, rpc
from . import conf as options
from .agent import conf as agent_options

NAME = 'storage-block'
CONDUCTOR = 'kodiak.storage_block.conductor'


def load_conf(args=(), files=None):
    """The configuration of this service from command-line arguments and files; its agent reads the same file."""
    return config.load(NAME, {**options.OPTS, **agent_options.OPTS}, args=args, files=files, defaults=options.DEFAULTS)


def load(runtime):
    """The WSGI application of the API process."""
    runtime.policy = policy.Enforcer(runtime.conf)
    runtime.on_reload.append(runtime.policy.reload)
    return wsgi.load(runtime)


def api():
    """``kodiak-storage-block-api``."""
    service.run_api(NAME, load, opts=options.OPTS, defaults=options.DEFAULTS, conductor=(CONDUCTOR, rpc.CONDUCTOR_TOPIC))


def conductor():
    """``kodiak-storage-block-conductor``."""
    from . import conductor as made
    service.run_worker(NAME, made.build, opts=options.OPTS, defaults=options.DEFAULTS, topic=rpc.CONDUCTOR_TOPIC)


def admin():
    """``kodiak-storage-block``."""
    def apis():
        from .api import API
        return [API]
    commands = cli.Commands(NAME, load_conf, apis, broker=True, root=True)
    commands.add('key-file', _key_file, 'Make the key of encrypted volumes where there is none yet, and say in which file it is. '
                 'All nodes with an API or a conductor need the same.')
    commands.add('usage-audit', _usage_audit, 'Tell on the message bus which volumes, snapshots and backups were there in the last '
                 'whole period (volume.exists and so on). To be run once a period.', [
                     (['--period'], {'choices': list(audit.PERIODS), 'default': 'month', 'help': 'in UTC'})])
    cli.main(commands)


def _usage_audit(conf, options):
    from kodiak.common import db, outbox

    from . import notices
    if not conf.notifications.topics:
        print('Nobody is told: [notifications] topics names none.', file=sys.stderr)
        return 1
    database = db.Database(config.database_url(conf, NAME))
    outbox.announce(database, conf.notifications.disabled)
    begin, end = audit.last(options.period, db.utcnow())
    count = database.transact(notices.audit, begin, end)
    print(f'{count} from {begin} to {end}')
    return 0


def _key_file(conf, options):
    from kodiak.common import db, errors

    from . import keys
    try:
        path = db.Database(config.database_url(conf, NAME)).transact(keys.setup, conf)
    except errors.Error as error:
        print(error.message, file=sys.stderr)
        return 1
    if os.geteuid() == 0:
        # Run by root, the file still belongs to the user that the service runs as.
        owner = os.stat(os.path.dirname(path))
        os.chown(path, owner.st_uid, owner.st_gid)
    print(path)
    return 0
