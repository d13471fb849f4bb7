"""Logging by oslo.log: text or one JSON object a line, with request ids, and without secrets."""
import logging

from oslo_log import log as oslo_log
from oslo_utils import strutils

PREFIX = '[%(global_request_id)s %(request_id)s %(user)s %(project)s %(domain)s] '
TEXT = '%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s '


class Masked(logging.Filter):
    """Replaces passwords, tokens and keys in messages; and their arguments, once formatted."""

    WORDS = ('pass', 'token', 'secret', 'key', 'auth', 'credential', 'hash')

    def filter(self, record):
        """Never drops a record."""
        if record.name == 'kodiak.access':
            # Paths without their queries hold no secrets, and there is one line of these a request.
            return True
        message = record.getMessage()
        lowered = message.lower()
        if any(word in lowered for word in self.WORDS):
            record.msg, record.args = strutils.mask_password(message), None
        return True


def setup(conf, name):
    """Start logging as the configuration says: to stderr, or to ``--log-file``.

    :param name: the process's name, for syslog and the JSON format.
    """
    quiet = ['amqp=WARN', 'amqplib=WARN', 'kombu=WARN', 'sqlalchemy=WARN', 'urllib3=WARN', 'requests=WARN',
             'keystoneauth=WARN', 'oslo_messaging=WARN', 'oslo.messaging=WARN', 'oslo_privsep=WARN', 'pyroute2=WARN',
             'oslo_policy=WARN', 'stevedore=WARN', 'gunicorn=WARN', 'eventlet=WARN', 'werkzeug=WARN']
    oslo_log.set_defaults(logging_context_format_string=TEXT + PREFIX + '%(message)s',
                          default_log_levels=quiet)
    for option, value in (('logging_default_format_string', TEXT + '[-] %(message)s'),
                          ('logging_context_format_string', TEXT + PREFIX + '%(message)s'),
                          ('default_log_levels', quiet), ('logging_exception_prefix', '')):
        conf.set_default(option, value)
    conf.set_default('use_stderr', not conf.log_file)
    if conf.log_format == 'json':
        conf.set_default('use_json', True)
    oslo_log.setup(conf, name)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Masked())
    logging.captureWarnings(True)
