"""The interface of a store for image data.

A driver keeps blobs: immutable byte strings under keys that the caller makes (UUIDs, never used twice). What is in
a store, and what must be removed from it, is known by the table ``blobs``; a driver has no records of its own.
"""
import abc

from oslo_config import cfg

#: Options that every store has.
COMMON = (
    cfg.StrOpt('description', help='What users read of this store.'),
    cfg.IntOpt('weight', default=0, help='Stores with more weight are read first.'),
)


class NoSuchData(Exception):
    """The store has nothing under this key."""


class StoreFull(Exception):
    """The store has no room for the data."""


class StoreUnavailable(Exception):
    """The store cannot be reached now; a retry may succeed."""


class Writer(abc.ABC):
    """Takes the data of one blob, in order. Exactly one of :meth:`commit` and :meth:`abort` ends it."""

    @abc.abstractmethod
    def write(self, data):
        """Append ``data`` (bytes). Raises :class:`StoreFull`."""

    @abc.abstractmethod
    def commit(self):
        """Make the blob readable. When this returns, the data survives a power failure."""

    @abc.abstractmethod
    def abort(self):
        """Leave nothing behind."""


class Store(abc.ABC):
    """One configured store.

    :param store_id: the operator's name for it; :param conf: its group of options, registered from :attr:`OPTS`;
    :param state_path: folder of what the service keeps on this host.
    """

    #: oslo.config options of the driver, in the group ``[store_<id>]``
    OPTS = ()
    #: the scheme of the store's URLs
    SCHEME = ''
    read_only = False
    #: True: the store asks identity for tokens, with its own credentials in its group or the service's
    keystone = False
    #: the :class:`kodiak.image.web.Guard` that whatever fetches by URL must ask
    guard = None
    #: ``session()``: a keystoneauth session, where :attr:`keystone` is set
    session = None

    def __init__(self, store_id, conf, state_path):
        self.id = store_id
        self.conf = conf
        self.state_path = state_path

    @property
    def description(self):
        """For people, in the list of stores."""
        return self.conf.description or None

    @abc.abstractmethod
    def prepare(self):
        """Make the store ready for use; called once a process."""

    @abc.abstractmethod
    def create(self, key, size=None):
        """A :class:`Writer` for a new blob; ``size`` in bytes where it is known before. Raises :class:`StoreFull`."""

    @abc.abstractmethod
    def open(self, key, offset=0):
        """A binary file object at ``offset``; with a real ``fileno()`` where the kernel can send it. Raises
        :class:`NoSuchData`."""

    def path_of(self, key):
        """The path of a blob where it is a file on this host, else None."""
        return None

    @abc.abstractmethod
    def remove(self, key):
        """Remove a blob, half-written ones too. Nothing there is no error: a removal may be repeated."""

    @abc.abstractmethod
    def url(self, key):
        """The URL of a blob, as ``direct_url`` and ``locations`` show it."""

    def takes(self, url):
        """True if users may add locations with this URL, whose data the store then reads under the URL as its key."""
        return False

    def check(self, url):  # noqa: B027 (a store that takes no URLs has nothing to check)
        """``BadRequest`` for a URL that it takes in principle but must not read."""

    def properties(self):
        """What ``/v2/info/stores/detail`` tells administrators."""
        return {}
