"""What needs root runs in a small daemon of its own (oslo.privsep), which keeps only the capabilities named.

An agent has one module of privileged functions::

    context = privileged.context(__name__, capabilities=['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'])

    @context.entrypoint
    def add_tap(name, owner): ...

and calls ``privileged.start(context, conf)`` once before the first of them. Arguments and results are plain
values (msgpack), plus :class:`FileDescriptor`-free types only; an exception is raised again at the caller.
"""
import os
import shlex
import sys
import warnings

from oslo_config import cfg

OPTS = [
    cfg.StrOpt('helper_command', default='sudo -n kodiak-privsep-helper',
               help='Command that starts the privileged daemon as root; the daemon keeps only what it needs.'),
]


def context(module, capabilities, name='context'):
    """The privileged context of ``module``, to be kept there under ``name``.

    :param capabilities: Linux capabilities that the daemon keeps (``CAP_NET_ADMIN``); all others are dropped.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')      # the library imports eventlet if it is installed, which warns
        from oslo_privsep import capabilities as known
        from oslo_privsep import priv_context
    return priv_context.PrivContext(
        module, cfg_section='privileged', pypath=f'{module}.{name}',
        capabilities=[known.CAPS_BYNAME[capability] for capability in capabilities])


def start(priv_context, conf):
    """Start the daemon of a context: a fork where this process is root, else by ``[privileged] helper_command``."""
    from oslo_privsep.priv_context import Method
    conf.register_opts(OPTS, group='privileged')
    if os.geteuid() == 0:
        priv_context.start(Method.FORK)
        return
    command = shlex.split(conf.privileged.helper_command)
    for path in conf.config_file or ():
        command += ['--config-file', path]
    cfg.CONF.set_override('helper_command', shlex.join(command), group='privileged')
    priv_context.start(Method.ROOTWRAP)


def helper():
    """Entry point of ``kodiak-privsep-helper``: serves one context until the agent goes away."""
    sys.argv[0] = 'privsep-helper'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from oslo_privsep import daemon
    daemon.helper_main()
