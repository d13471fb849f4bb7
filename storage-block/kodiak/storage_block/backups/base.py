"""Where backups are kept: containers of named objects."""


class Store:
    """A place of backups.

    :param clients: the process's :class:`kodiak.common.client.Clients`.
    :param location: where, in the driver's own words; ``container`` is the one used where a backup names none.
    """

    #: The name in the records of backups.
    name = None

    def __init__(self, clients, location):
        self.clients, self.location = clients, location

    #: The container of backups that name none.
    container = 'volumebackups'

    def prepare(self, container):
        """Make the container where it is missing."""
        raise NotImplementedError

    def put(self, container, name, data):
        """Keep ``data`` (bytes) for good; one of that name is replaced."""
        raise NotImplementedError

    def get(self, container, name):
        """What was put. :raises drivers.base.Fault: ``backup``, final where it is gone."""
        raise NotImplementedError

    def names(self, container, prefix):
        """The names that begin with ``prefix``; none where there is no such container."""
        raise NotImplementedError

    def delete(self, container, name):
        """Forget an object; none of that name is no error."""
        raise NotImplementedError
