"""What a process of a service has at hand."""
import dataclasses
import typing


@dataclasses.dataclass
class Runtime:
    """Made once a process by the service's ``cmd.build`` and passed to whoever needs it.

    Attributes: ``name`` (the service's folder: ``image``, ``storage-block``), ``conf`` (oslo.config), ``db``
    (:class:`kodiak.common.db.Database`; None in agents), ``policy`` (:class:`kodiak.common.policy.Enforcer`; APIs), ``bus``
    (:class:`kodiak.common.rpc.Bus`, or None), ``clients`` (:mod:`kodiak.common.client`), ``feed`` (a token feed that replaces
    polling identity: tests, identity itself), ``extra`` (what only this service has).
    """

    name: str
    conf: typing.Any
    db: typing.Any = None
    policy: typing.Any = None
    bus: typing.Any = None
    clients: typing.Any = None
    feed: typing.Any = None
    extra: dict = dataclasses.field(default_factory=dict)

    def faults(self):
        """What keeps this process from serving, as sentences; an empty list when it is ready."""
        found = []
        if self.db is not None and not self.db.healthy():
            found.append(f'The database {self.db.url.render_as_string(hide_password=True)} does not answer.')
        if self.bus is not None and not self.bus.healthy():
            found.append('The message broker does not answer.')
        return found
