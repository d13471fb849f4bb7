"""How the volumes of a host are reached by the hosts of guests.

There is one export for each attachment, so that taking one away cuts off its holder and nobody else. An exporter
is level-driven: :meth:`Exporter.sync` is told all exports that should be, and makes it so; it keeps nothing
that it could not find again by looking.
"""
import contextlib
import dataclasses
import os
import pathlib
import signal
import time

PAUSE = 2.0         # seconds that a server may take to stand still


@dataclasses.dataclass(frozen=True)
class Export:
    """One attachment's way to a volume.

    :param node: the ``drivers.base.Node`` of the volume; ``size`` its bytes.
    :param username: and ``password``: what the initiator shows (CHAP), where the exporter asks for such.
    """

    attachment_id: str
    volume_id: str
    node: object
    size: int
    read_only: bool = False
    username: str | None = None
    password: str | None = None


class Exporter:
    """A way to export volumes."""

    #: What clients of the API know it by: ``iSCSI``, ``NBD``.
    protocol = None
    #: Whether who holds an export sees that its volume grew.
    online_extend = False

    def start(self, lost):
        """Begin. ``lost()`` is called whenever what was exported may be gone (the server died)."""
        raise NotImplementedError

    def stop(self):
        """Let go of the server; what is exported stays so."""
        raise NotImplementedError

    def sync(self, exports):
        """Make the exports be exactly these.

        :param exports: a list of :class:`Export`.
        :returns: ``{attachment_id: None or a sentence why it is not exported}``, for each of ``exports``.
        :raises drivers.base.Fault: where the server can't be reached.
        """
        raise NotImplementedError

    def resize(self, exports):
        """The volume of these exports has grown: let who holds them see it."""
        raise NotImplementedError

    def reopen(self, exports):
        """The volume of these exports is another file now: use that."""
        raise NotImplementedError

    def pid(self):
        """The process that exports. :raises drivers.base.Fault: there is none."""
        raise NotImplementedError

    @contextlib.contextmanager
    def still(self):
        """While this lasts, which should be milliseconds, nobody writes to what is exported; guests wait.

        What is written by then is all that was answered to guests, so that several volumes are seen as of one moment.
        """
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            end = time.monotonic() + PAUSE
            while _state(pid) not in 'TtZX' and time.monotonic() < end:
                time.sleep(0.001)
            yield
        finally:
            go_on(pid)

    def connection(self, export):
        """What the holder connects by: ``{'driver_volume_type': ..., 'data': {...}}``, secrets included. What is known of
        the attachment itself the conductor adds."""
        raise NotImplementedError


def go_on(pid):
    """Let a process that stands still go on: whoever stopped it may have died in between."""
    if pid:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)


def _state(pid):
    """The state of a process's first thread, a letter: it is the one that answers."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return 'X'
