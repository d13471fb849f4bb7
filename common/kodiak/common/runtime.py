"""What a process of a service has at hand."""
import dataclasses
import datetime
import logging
import typing

LOG = logging.getLogger(__name__)


def _now():
    """As ``db.utcnow``, for processes that carry no database library."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


@dataclasses.dataclass
class Runtime:
    """Made once a process and passed to whoever needs it.

    Attributes: ``name`` (the service's folder: ``image``, ``storage-block``), ``conf`` (oslo.config), ``db``
    (:class:`kodiak.common.db.Database`; None in agents), ``policy`` (:class:`kodiak.common.policy.Enforcer`; APIs), ``bus``
    (:class:`kodiak.common.rpc.Bus`, or None), ``clients`` (:mod:`kodiak.common.client`), ``feed`` (a token feed that replaces
    polling identity: tests, identity itself), ``extra`` (what only this service has), ``binary`` (the process:
    ``kodiak-compute-api``), ``host``, ``version``, ``started_at``.

    ``background``: objects with ``start()`` and ``stop()`` (saga workers, publishers, reconcilers), started once the process is
    up (in each API worker, after the fork) and stopped in reverse. ``on_reload``: functions called on SIGHUP, after the
    configuration was read again.
    """

    name: str
    conf: typing.Any
    db: typing.Any = None
    policy: typing.Any = None
    bus: typing.Any = None
    clients: typing.Any = None
    feed: typing.Any = None
    extra: dict = dataclasses.field(default_factory=dict)
    binary: str = ''
    host: str = 'localhost'
    version: str = ''
    started_at: datetime.datetime = dataclasses.field(default_factory=_now)
    background: list = dataclasses.field(default_factory=list)
    on_reload: list = dataclasses.field(default_factory=list)

    def faults(self, broker=True):
        """What keeps this process from serving, as sentences; an empty list when it is ready.

        :param broker: False: leave out the broker, without which requests are answered all the same.
        """
        found = []
        if self.db is not None and not self.db.healthy():
            found.append(f'The database {self.db.url.render_as_string(hide_password=True)} does not answer.')
        if broker and self.bus is not None and not self.bus.healthy():
            found.append('The message broker does not answer.')
        return found

    def about(self):
        """What a process without a database has its conductor write into the table ``services``; times in ISO 8601, UTC."""
        return {'version': self.version, 'started_at': self.started_at.isoformat(timespec='seconds')}

    def start(self):
        """Start what runs in the background."""
        for part in self.background:
            part.start()

    def stop(self):
        """Stop it, last first; what runs is let finish."""
        for part in reversed(self.background):
            try:
                part.stop()
            except Exception:
                LOG.exception('%s does not stop', part)
        if self.bus is not None:
            self.bus.close()
