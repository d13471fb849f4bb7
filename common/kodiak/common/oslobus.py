"""How oslo.messaging is set up on a configuration object of our own; imported when a broker is first used."""
import contextlib
import logging
import socket
import ssl
import time
import urllib.parse

from oslo_config import cfg
from oslo_utils import strutils

from kodiak.common import noeventlet

_reached = {}


def reachable(conf, fresh=1.0):
    """True if a broker of ``transport_url`` takes connections; an answer is good for ``fresh`` seconds."""
    url = conf.transport_url
    if not url or url.startswith('fake'):
        return bool(url)
    when, answer = _reached.get(url, (0.0, False))
    if time.monotonic() - when < fresh:
        return answer
    answer = any(_connects(host, port) for host, port in _addresses(url))
    _reached[url] = (time.monotonic(), answer)
    return answer


def _addresses(url):
    default = 5671 if 'ssl=1' in url else 5672
    for netloc in urllib.parse.urlsplit(url).netloc.split(','):
        part = urllib.parse.urlsplit('//' + netloc)
        yield part.hostname or 'localhost', part.port or default


def _connects(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False


def tls(conf):
    """What py-amqp is to make connections to the broker with, as ``[oslo_messaging_rabbit]`` or the URL's query says; False
    where they are plain."""
    names = ('ssl_ca_file', 'ssl_cert_file', 'ssl_key_file')
    for option in (cfg.BoolOpt('ssl', default=False, deprecated_name='rabbit_use_ssl'), *(
            cfg.StrOpt(name, default='', deprecated_name='kombu_ssl_' + {'ssl_ca_file': 'ca_certs', 'ssl_cert_file': 'certfile',
                                                                         'ssl_key_file': 'keyfile'}[name]) for name in names)):
        with contextlib.suppress(cfg.DuplicateOptError):
            conf.register_opt(option, group='oslo_messaging_rabbit')
    group = conf.oslo_messaging_rabbit
    asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(conf.transport_url or '').query))
    if not strutils.bool_from_string(asked.get('ssl', group.ssl)):
        return False
    authority, certificate, key = (asked.get(name) or getattr(group, name) for name in names)
    found = {'ca_certs': authority, 'certfile': certificate, 'keyfile': key,
             'cert_reqs': ssl.CERT_REQUIRED if authority else ssl.CERT_NONE}
    return {name: value for name, value in found.items() if value != ''}


class _Seldom(logging.Filter):
    """Lets a message of the driver through once a minute: each connection says every second that the broker is away."""

    def __init__(self):
        super().__init__()
        self.said = {}

    def filter(self, record):
        """False for what was said lately."""
        now = time.monotonic()
        if now - self.said.get(str(record.msg), -60.0) < 60.0:
            return False
        self.said[str(record.msg)] = now
        return True


_seldom = _Seldom()


def prepare(conf):
    """Register the options that oslo.messaging reads but does not register on a private ConfigOpts."""
    from oslo_messaging._metrics import client as metrics
    from oslo_messaging._tracing import client as tracing
    conf.register_opts(tracing.oslo_messaging_tracing, group='oslo_messaging_tracing')
    conf.register_opts(metrics.oslo_messaging_metrics, group='oslo_messaging_metrics')
    logging.getLogger('oslo.messaging._drivers.impl_rabbit').addFilter(_seldom)


def transport(conf):
    """The RPC transport of ``transport_url``."""
    messaging = noeventlet.import_messaging()
    prepare(conf)
    return messaging.get_rpc_transport(conf)


def notification_transport(conf):
    """The transport of notifications: the same broker, unless ``[oslo_messaging_notifications]`` names another."""
    messaging = noeventlet.import_messaging()
    prepare(conf)
    return messaging.get_notification_transport(conf)
