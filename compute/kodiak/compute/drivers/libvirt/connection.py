"""The connection to libvirtd: one for all threads, opened again when it was lost, with the events it sends."""
import logging
import threading
import time

import libvirt

LOG = logging.getLogger(__name__)

_loop_lock = threading.Lock()
_loop = None


def _start_event_loop():
    """libvirt's event loop: once a process, before the first connection, in a thread of its own."""
    global _loop
    with _loop_lock:
        if _loop is None:
            libvirt.registerErrorHandler(lambda context, error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_run_event_loop, name='libvirt-events', daemon=True)
            _loop.start()


def _run_event_loop():
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception('libvirt event loop')


class Connection:
    """Hands out the connection, and tells of guests that changed their state.

    :param uri: for example ``qemu:///system``.
    :param changed: called with the uuid of a domain, from the event thread, on every event of its life.
    """

    def __init__(self, uri, changed):
        self.uri = uri
        self._changed = changed
        self._lock = threading.Lock()
        self._connection = None
        self._moved = threading.Condition()
        self.closed = False

    def get(self):
        """The connection.

        :raises libvirt.libvirtError: while libvirtd does not answer.
        """
        with self._lock:
            if self._connection is not None and self._connection.isAlive():
                return self._connection
            _start_event_loop()
            connection = libvirt.open(self.uri)
            connection.setKeepAlive(5, 3)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._event, None)
            connection.registerCloseCallback(self._lost, None)
            if self._connection is not None:
                LOG.info('Connected to libvirt again')
            self._connection = connection
            return connection

    def _lost(self, connection, reason, opaque):
        LOG.warning('Lost the connection to libvirt (reason %s)', reason)
        self.wake()

    def _event(self, connection, domain, event, detail, opaque):
        self.wake()
        self._changed(domain.UUIDString())

    def wake(self):
        """Let everybody in :meth:`wait` look again."""
        with self._moved:
            self._moved.notify_all()

    def wait(self, condition, timeout):
        """Wait until ``condition()`` is true; it is looked at after every event and once a second.

        :returns: False if the time ran out, or the connection is being closed.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or self.closed:
                return False
            with self._moved:
                self._moved.wait(min(left, 1.0))
        return True

    def interrupt(self):
        """Let everybody in :meth:`wait` give up, from now on."""
        self.closed = True
        self.wake()

    def close(self):
        """Close the connection. Domains go on."""
        self.interrupt()
        with self._lock:
            if self._connection is not None:
                try:
                    self._connection.unregisterCloseCallback()
                    self._connection.close()
                except libvirt.libvirtError:
                    LOG.debug('closing the libvirt connection', exc_info=True)
                self._connection = None

    def find(self, uuid):
        """The domain with this uuid, or None."""
        try:
            return self.get().lookupByUUIDString(uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
