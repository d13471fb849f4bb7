"""Entry points: the proxy, the server of accounts, containers and objects, its daemons apart from it, the admin command."""
import argparse
import importlib.resources
import json
import sys

from kodiak.common import cli, config, log, service, wsgi

from . import conf as options
from .daemons import care

NAME = 'storage-object'
# Names and metadata may be long, and metadata names may hold what elsewhere is taken for another spelling of "-".
LONG = {'limit_request_line': 0, 'limit_request_field_size': 65536, 'limit_request_fields': 250, 'header_map': 'dangerous'}


def load_conf(args=(), files=None):
    """The configuration of this service from command-line arguments and files."""
    return config.load(NAME, options.OPTS, args=args, files=files, defaults=options.DEFAULTS)


def _paste(name):
    return str(importlib.resources.files('kodiak.storage_object') / name)


def as_proxy(conf):
    """The pipeline of the proxy, unless the configuration names one."""
    if not conf.api.paste_config:
        conf.set_override('paste_config', _paste('proxy-paste.ini'), group='api')


def as_server(conf):
    """Where the server listens, and its pipeline."""
    for name, value in (('bind_host', conf.storage.server_host), ('bind_port', conf.storage.server_port), ('also_bind', []),
                        ('workers', conf.storage.server_workers), ('threads', conf.storage.server_threads),
                        ('paste_config', conf.storage.server_paste_config or _paste('server-paste.ini'))):
        conf.set_override(name, value, group='api')


def load_proxy(runtime):
    """The WSGI application of the proxy."""
    return wsgi.load(runtime, name=runtime.conf.storage.pipeline)


def proxy():
    """``kodiak-object-proxy``."""
    service.run_api(NAME, load_proxy, opts=options.OPTS, defaults=options.DEFAULTS, binary='kodiak-object-proxy', database=False,
                    adjust=as_proxy, settings=LONG)


def server():
    """``kodiak-object-server``."""
    service.run_api(NAME, wsgi.load, opts=options.OPTS, defaults=options.DEFAULTS, binary='kodiak-object-server', database=False,
                    adjust=as_server, settings=LONG)


def admin():
    """``kodiak-storage-object``."""
    cli.main(cli.Commands(NAME, load_conf, database=False))


def daemon():
    """``kodiak-object-daemon``: the daemons in a process of their own."""
    parser = argparse.ArgumentParser(
        prog='kodiak-object-daemon', usage='%(prog)s [--once] [--config-file FILE] [DAEMON ...]', allow_abbrev=False,
        description=f'Look after the devices of this node. DAEMON: {", ".join(options.DAEMONS)}; all if none.')
    parser.add_argument('--once', action='store_true', help='make one pass of each and end')
    # (What else there is are options of every service, some with a value: argparse would take that for a daemon.)
    chosen, rest = parser.parse_known_args()
    names = [word for word in rest if word in options.DAEMONS] or list(options.DAEMONS)
    rest = [word for word in rest if word not in options.DAEMONS]
    if chosen.once:
        conf = load_conf(rest)
        log.setup(conf, 'kodiak-object-daemon')
        sys.exit(_one_pass(conf, names))

    def build(runtime):
        from .backend import app
        server = app.Server.of(runtime.conf)
        runtime.background.append(care.Care(server, runtime.conf, app.make_daemons(server, runtime.conf, names)))
    service.run_worker(NAME, build, opts=options.OPTS, defaults=options.DEFAULTS, argv=rest, binary='kodiak-object-daemon',
                       database=False)


def _one_pass(conf, names):
    """Make one pass of each; the exit status."""
    from .backend import app
    server = app.Server.of(conf)
    daemons = app.make_daemons(server, conf, names)
    for each in daemons:
        each.run_once()
        if hasattr(each, 'heal_noted'):
            each.heal_noted()
        print(each.name, json.dumps(each.progress.last))
    server.updater.report_changed()
    care.write_recon(conf, daemons)
    return 1 if any('failed' in each.progress.last for each in daemons) else 0
