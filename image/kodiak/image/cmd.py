"""Entry points: the API process and the admin command."""
import pathlib

from kodiak.common import cli, config, db, policy, saga, service, wake, wsgi

from . import blobs, imports, locations, metadefs, protections, quotas, stores
from . import cache as caches
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
    runtime.extra['stores'] = stores.Stores(runtime.conf, runtime.clients)
    runtime.extra['stores'].prepare()
    keeper = blobs.Keeper(runtime.db, runtime.extra['stores'])
    runtime.extra['limits'] = quotas.Limits(runtime.conf, runtime.clients)
    _protect(runtime)
    cache = runtime.extra['cache'] = caches.Cache(runtime.db, runtime.conf.host, runtime.conf.cache)
    wake.listen(runtime.db, blobs.WAKE, keeper.nudge)
    runtime.background += [keeper, saga.Worker(runtime, [imports.IMPORT, locations.LOCATION], threads=runtime.conf.imports.threads)]
    if cache:
        runtime.background.append(caches.Prefetcher(cache, runtime.extra['stores']))
    return runtime


def _protect(runtime):
    runtime.extra['protections'] = protections.Protections(runtime.conf.find_file(protections.FILE))


def load(runtime):
    """The WSGI application of the API process."""
    prepare(runtime)
    runtime.on_reload += [runtime.policy.reload, lambda: _protect(runtime)]
    return wsgi.load(runtime)


def api():
    """``kodiak-image-api``."""
    service.run_api(NAME, load, opts=options.OPTS, defaults=options.DEFAULTS)


def admin():
    """``kodiak-image``."""
    from .api import API
    commands = cli.Commands(NAME, load_conf, lambda: [API])
    commands.add('metadefs', _load_metadefs, 'Load metadata definitions: those that come with the service, or those of files.', [
        (['action'], {'choices': ['load']}), (['file'], {'nargs': '*', 'help': 'YAML: one namespace a document'})])
    cli.main(commands)


def _load_metadefs(conf, options):
    database = db.Database(conf.database.connection)
    files = [pathlib.Path(name) for name in options.file] or None
    added, skipped = database.transact(metadefs.load, files)
    print('\n'.join([*(f'added {name}' for name in added), *(f'kept {name}' for name in skipped)]))
    database.close()
