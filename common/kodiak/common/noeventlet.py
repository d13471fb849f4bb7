"""Keeps eventlet out of processes that run on native threads.

oslo.messaging and oslo.privsep import eventlet wherever it is installed, only to find out whether it patched
the process; that costs 20 MB of memory and a quarter of a second in each process. They also work where it is not
installed, and this makes it look so. The one process that does use eventlet imports
:mod:`kodiak.common.greensockets` first, and nothing is hidden there.
"""
import abc
import sys
import types


def hide():
    """Let ``import eventlet`` fail in this process from now on, unless it was imported already."""
    sys.modules.setdefault('eventlet', None)


def import_messaging():
    """Import oslo.messaging without eventlet; returns the module.

    Its RPC server derives from an abstract class of oslo.service, whose module wants one of two backends to be
    there: eventlet, or a process manager that we have no use for. The class itself is all that is needed.
    """
    hide()
    if sys.modules['eventlet'] is None and 'oslo_service.service' not in sys.modules:
        import oslo_service
        module = types.ModuleType('oslo_service.service')
        module.ServiceBase = abc.ABCMeta('ServiceBase', (), {'__doc__': 'Base of what can be started and stopped.'})
        sys.modules['oslo_service.service'] = oslo_service.service = module
    import oslo_messaging
    return oslo_messaging
