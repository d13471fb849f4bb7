"""Configuration: one oslo.config object a process, from ``/etc/kodiak/<service>.conf``.

Each service lists what it alone needs in its ``conf.py`` (``OPTS``, a dictionary of group to options);
what all services share stands here. Nothing reads ``cfg.CONF``: the object is passed to whoever needs it,
so that tests run several services in one process.
"""
import os

from oslo_config import cfg


class SharedOpt(cfg.StrOpt):
    """An option that a library registers too, later: the first registration stands."""

    def __eq__(self, other):
        return self.dest == other.dest

    def __ne__(self, other):
        return self.dest != other.dest

    __hash__ = cfg.StrOpt.__hash__


COMMON = {
    'DEFAULT': [
        SharedOpt('transport_url', secret=True, help='The message broker of this service, for example '
                                                     'rabbit://user:password@host:5672/kodiak.'),
        cfg.StrOpt('host', sample_default='<the host name>', default=os.uname().nodename,
                   help='Name of this host among all hosts of the deployment. Never change it once it is in use.'),
        cfg.StrOpt('state_path', default='/var/lib/kodiak', help='Folder of what must survive a restart.'),
        cfg.StrOpt('run_path', default='/run/kodiak', help='Folder of sockets and process ids.'),
        cfg.StrOpt('log_format', default='text', choices=['text', 'json'],
                   help='How a log line is written: for people, or one JSON object a line.'),
    ],
    'worker': [
        cfg.PortOpt('status_port', help='Port on which processes that are no API serve /healthcheck and /metrics, '
                                        'on bind_host of [api]; only a Unix socket in run_path if unset.'),
    ],
    'clients': [
        cfg.DictOpt('endpoints', default={}, help='Where other services are, in place of the catalog: '
                                                  'network:http://10.0.0.5:9696,image:http://10.0.0.5:9292'),
        cfg.StrOpt('interface', default='internal', help="Which of the catalog's endpoints is used."),
        cfg.StrOpt('region_name', help='Region of the endpoints; any if unset.'),
    ],
    'database': [
        cfg.StrOpt('connection', secret=True, help='SQLAlchemy URL of the database of this service.'),
        cfg.IntOpt('pool_size', default=10, min=1, help='Connections a process keeps open.'),
    ],
    'notifications': [
        cfg.ListOpt('topics', default=[], help='Topics on the message broker to which this service tells what changes in it '
                                               '(notifications); it tells nothing if empty. A service without a broker tells '
                                               'nothing.'),
        cfg.ListOpt('disabled', default=[], deprecated_name='disabled_notifications', deprecated_group='DEFAULT',
                    help='Event types that are not told, whole (image.update) or by their first words (image.member).'),
    ],
    'api': [
        cfg.StrOpt('bind_host', default='0.0.0.0', help='Address that the API listens on.'),
        cfg.ListOpt('also_bind', default=[], help='More addresses that the API listens on, each as host:port.'),
        cfg.PortOpt('bind_port', help='Port that the API listens on; each service has its default.'),
        cfg.IntOpt('workers', default=2, min=1, help='API processes.'),
        cfg.BoolOpt('conductor', default=False, help='The API processes do the work of the conductor too: a small node saves '
                                                     'a process for each service.'),
        cfg.IntOpt('threads', default=8, min=1, help='Threads of an API process.'),
        cfg.IntOpt('client_timeout', default=60, min=1, help='Seconds that a client may do nothing in the middle of a request or '
                                                             'an answer before its connection is closed.'),
        cfg.StrOpt('public_endpoint', help='URL under which users reach this API, where it differs from the '
                                           'one in their request (a load balancer, TLS in front).'),
        cfg.ListOpt('trusted_proxies', default=['127.0.0.1', '::1'],
                    help='Addresses and networks of load balancers, whose X-Forwarded-For and X-Forwarded-Proto are believed.'),
        cfg.StrOpt('client_certificate_header',
                   help='Header in which the trusted proxies pass on the certificate that a client has shown them and that they '
                        'have verified: Client-Cert (RFC 9440), or whatever carries it as PEM, escaped PEM or base64. They must '
                        'take away what clients send in it. Unset: no such header is believed.'),
        cfg.StrOpt('paste_config', help='The paste.deploy pipeline; the one installed with the service if unset.'),
        cfg.IntOpt('max_body_size', default=114688, help='Largest body of a JSON request, in bytes.'),
        cfg.ListOpt('cors_allowed_origin', default=[], help='Origins whose pages may call this API from a browser.'),
    ],
}


def database_url(conf, service):
    """The SQLAlchemy URL of a service's database: an SQLite file in its state folder where none is configured."""
    return conf.database.connection or f'sqlite:///{conf.state_path}/{service}/{service}.sqlite'


def load(service, opts=None, args=(), files=None, defaults=None):
    """The configuration of one service.

    :param service: its short name (``image``), which also names ``<service>.conf``.
    :param opts: the service's own options, group to list.
    :param args: command-line arguments left for oslo.config (``--config-file``, ``--debug``).
    :param files: configuration files; ``/etc/kodiak/<service>.conf`` where it exists, if None.
    :param defaults: ``{(group, name): value}``, defaults that this service sets for common options.
    :returns: an ``oslo_config.cfg.ConfigOpts``.
    """
    from oslo_log import log
    from oslo_policy import opts as policy_opts

    from . import authtoken

    conf = cfg.ConfigOpts()
    for source in (COMMON, opts or {}):
        for group, options in source.items():
            conf.register_opts(options, group=None if group == 'DEFAULT' else group)
    log.register_options(conf)
    policy_opts._register(conf)
    authtoken.register(conf)
    for (group, name), value in (defaults or {}).items():
        conf.set_default(name, value, group=None if group == 'DEFAULT' else group)
    if files is None:
        path = os.path.join(os.environ.get('KODIAK_CONFIG_DIR', '/etc/kodiak'), service + '.conf')
        files = [path] if os.path.exists(path) else []
    conf(list(args), project='kodiak', prog='kodiak-' + service, default_config_files=files)
    return conf
