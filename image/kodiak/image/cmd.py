"""Entry points: the API process and the admin command."""
import pathlib

from kodiak.common import cli, client, config, db, errors, outbox, policy, saga, service, wsgi

from . import blobs, imports, locations, metadefs, protections, quotas, stores, trash
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
    runtime.extra['limits'] = quotas.Limits(runtime.conf, runtime.clients)
    _protect(runtime)
    cache = runtime.extra['cache'] = caches.Cache(runtime.db, runtime.conf.host, runtime.conf.cache)
    runtime.background += [blobs.Keeper(runtime.db, runtime.extra['stores']),
                           saga.Worker(runtime, [imports.IMPORT, locations.LOCATION], threads=runtime.conf.imports.threads)]
    if runtime.conf.notifications.topics:
        notifier = outbox.Notifier(runtime.conf, f'image.{runtime.host}', bare=True)
        runtime.background.append(outbox.Publisher(runtime, {'': notifier}))
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
    commands.add('scrub', _scrub, 'Remove the data of deleted images that is due, and name what still waits.', [
        (['--now'], {'action': 'store_true', 'help': 'what was to be kept for a while (delete_delay) is due too'}),
        (['--restore'], {'metavar': 'IMAGE', 'help': 'bring a deleted image back, whose data is kept yet; remove nothing'})])
    cli.main(commands)


def _scrub(conf, options):
    database = db.Database(conf.database.connection)
    if options.restore:
        try:
            database.transact(trash.restore, options.restore)
        except errors.Error as error:
            raise SystemExit(error.message) from None
        finally:
            database.close()
        print(f'restored {options.restore}')
        return
    found = stores.Stores(conf, client.Clients(conf))
    found.prepare()
    if options.now:
        database.transact(blobs.hasten)
    removed = 0
    # One look takes what fits into it; what could not be removed is leased, and not met again.
    while more := blobs.Keeper(database, found).look():
        removed += more
    with database.read() as connection:
        waiting = blobs.doomed(connection)
    for row in waiting:
        print(f"{row['id']} of image {row['image_id']} in the store {row['store']}: "
              f"not before {row['lease_until']:%Y-%m-%d %H:%M:%S} UTC")
    print(f'removed {removed}, waiting {len(waiting)}')
    database.close()


def _load_metadefs(conf, options):
    database = db.Database(conf.database.connection)
    files = [pathlib.Path(name) for name in options.file] or None
    added, skipped = database.transact(metadefs.load, files)
    print('\n'.join([*(f'added {name}' for name in added), *(f'kept {name}' for name in skipped)]))
    database.close()
