"""What needs root runs in a small daemon of its own (oslo.privsep), which keeps only the capabilities named.

An agent has one module of privileged functions::

    context = privileged.context(__name__, capabilities=['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'])

    @context.entrypoint
    def add_tap(name, owner): ...

and calls ``privileged.start(context, conf)`` once before the first of them. Arguments and results are plain
values (numbers, text, bytes, lists, dictionaries with text keys); an exception is raised again at the caller.
"""
import itertools
import os
import shlex
import sys

from oslo_config import cfg

from kodiak.common import noeventlet

HELPER = 'kodiak-privsep-helper'
OPTS = [
    cfg.StrOpt('helper_command', sample_default='sudo -n <folder of the interpreter>/kodiak-privsep-helper',
               help='Command that starts the privileged daemon as root; the daemon keeps only what it needs. '
                    'A process that is root already forks it, if unset.'),
]


def context(module, capabilities, name='context'):
    """The privileged context of ``module``, to be kept there under ``name``.

    :param capabilities: Linux capabilities that the daemon keeps (``CAP_NET_ADMIN``); all others are dropped.
    """
    noeventlet.hide()
    from oslo_privsep import capabilities as known
    from oslo_privsep import priv_context
    return priv_context.PrivContext(
        module, cfg_section='privileged', pypath=f'{module}.{name}',
        capabilities=[known.CAPS_BYNAME[capability] for capability in capabilities])


def start(priv_context, conf):
    """Start the daemon of a context: a fork where this process is root, else by ``[privileged] helper_command``."""
    from oslo_privsep.priv_context import Method
    conf.register_opts(OPTS, group='privileged')
    if os.geteuid() == 0 and not conf.privileged.helper_command:
        priv_context.start(Method.FORK)
        return
    command = shlex.split(conf.privileged.helper_command or f'sudo -n {os.path.dirname(sys.executable)}/{HELPER}')
    for path in conf.config_file or ():
        command += ['--config-file', path]
    cfg.CONF.set_override('helper_command', shlex.join(command), group='privileged')
    priv_context.start(Method.ROOTWRAP)


def helper():
    """Entry point of ``kodiak-privsep-helper``: serves one context of ours until the agent goes away."""
    noeventlet.hide()
    from oslo_privsep import daemon
    names = [after for before, after in itertools.pairwise(sys.argv) if before == '--privsep_context']
    if len(names) != 1 or not names[0].startswith('kodiak.'):
        sys.exit(f'{HELPER} serves the privileged modules of kodiak only')
    daemon.helper_main()
