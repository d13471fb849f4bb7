"""Logging by oslo.log: text or one JSON object a line, with request ids, and without secrets."""
import logging
import re

from oslo_log import log as oslo_log
from oslo_utils import strutils

PREFIX = '[%(global_request_id)s %(request_id)s %(user)s %(project)s %(domain)s] '
TEXT = '%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s '


#: What may stand near a secret: a text without any of these words is not searched.
WORDS = ('pass', 'token', 'secret', 'key', 'auth', 'credential', 'hash', '://', 'kd1.', 'gaaaa', 'signature')
_SECRETS = [
    # The password in a URL, of a database or a broker.
    (re.compile(r'(://[^\s/:@]*:)[^\s/@]+(?=@)'), r'\1***'),
    (re.compile(r'kd1\.[\w.-]{8,}|\bgAAAA[\w=-]{20,}'), '***'),
    (re.compile(r'((?:x-(?:auth|subject|service)-token|authorization|x-instance-id-signature)[\'"]?\s*[:=]\s*[\'"]?)'
                r'[^\'"\r\n,}]+', re.IGNORECASE), r'\1***'),
]


def mask(text):
    """A text without the passwords, tokens and keys in it."""
    lowered = text.lower()
    if not any(word in lowered for word in WORDS):
        return text
    text = strutils.mask_password(text)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _masked_error(error):
    """An exception that says the same without secrets, with the traceback and the causes of ``error``."""
    said = str(error)
    hidden = mask(said)
    found = error if hidden == said else type(type(error).__name__, (Exception,), {'__module__': type(error).__module__})(hidden)
    for name in ('__cause__', '__context__'):
        inner = getattr(error, name)
        if inner is not None and (masked := _masked_error(inner)) is not inner:
            if found is error:
                found = type(type(error).__name__, (Exception,), {'__module__': type(error).__module__})(hidden)
            setattr(found, name, masked)
    if found is not error:
        found.__suppress_context__ = error.__suppress_context__
        found.__traceback__ = error.__traceback__
    return found


class Masked(logging.Filter):
    """Replaces secrets in messages, and their arguments, once formatted, and in the exceptions that are logged with them."""

    def filter(self, record):
        """Never drops a record."""
        if record.name == 'kodiak.access':
            # Paths without their queries hold no secrets, and there is one line of these a request.
            return True
        message = record.getMessage()
        hidden = mask(message)
        if hidden != message:
            record.msg, record.args = hidden, None
        if record.exc_info and isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
            error = _masked_error(record.exc_info[1])
            record.exc_info = type(error), error, record.exc_info[2]
            record.exc_text = None      # another handler may have formatted it before
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
