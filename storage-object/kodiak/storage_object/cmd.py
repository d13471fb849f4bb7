"""Entry points: the proxy, the server of accounts, containers and objects."""
import importlib.resources

from kodiak.common import cli, config, service, wsgi

from . import conf as options

NAME = 'storage-object'


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
                    adjust=as_proxy)


def server():
    """``kodiak-object-server``."""
    service.run_api(NAME, wsgi.load, opts=options.OPTS, defaults=options.DEFAULTS, binary='kodiak-object-server', database=False,
                    adjust=as_server)


def admin():
    """``kodiak-storage-object``."""
    cli.main(cli.Commands(NAME, load_conf, database=False))
