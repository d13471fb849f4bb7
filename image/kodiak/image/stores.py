"""The configured stores of image data, by id."""
import functools

from keystoneauth1 import loading
from oslo_config import cfg
from stevedore import driver

from kodiak.common import errors

from . import web

NAMESPACE = 'kodiak.image.stores'
#: A driver that is part of this distribution is found without its metadata, so that a source tree runs as it is.
BUILT_IN = {name: f'kodiak.image.drivers.{name}:{title}Store' for name, title in (
    ('cinder', 'Cinder'), ('file', 'File'), ('http', 'Http'), ('rbd', 'Rbd'), ('s3', 'S3'), ('swift', 'Swift'))}


def _class_of(name):
    built_in = BUILT_IN.get(name)
    if built_in:
        module, _, attribute = built_in.partition(':')
        return getattr(__import__(module, fromlist=[attribute]), attribute)
    return driver.DriverManager(NAMESPACE, name).driver


def register(conf):
    """Register the options of every enabled store; returns ``{id: driver class}`` in their configured order."""
    found = {}
    for entry in conf.stores.enabled:
        store_id, _, name = entry.partition(':')
        found[store_id] = _class_of(name or store_id)
        conf.register_opts(list(found[store_id].OPTS), group='store_' + store_id)
        if found[store_id].keystone:
            loading.register_auth_conf_options(conf, 'store_' + store_id)
            loading.register_session_conf_options(conf, 'store_' + store_id)
    return found


def _sessions(conf, group, clients):
    """``session()`` of a store: with the credentials of its group, or with the service's own where that has none."""
    @functools.cache
    def session():
        auth = loading.load_auth_from_conf_options(conf, group)
        return loading.load_session_from_conf_options(conf, group, auth=auth) if auth is not None else clients.session()
    return session


class Stores:
    """All stores of the service.

    :param conf: the service's configuration. :param clients: for tokens of its own, where a store needs any.
    """

    def __init__(self, conf, clients=None):
        self.by_id = {store_id: cls(store_id, conf['store_' + store_id], conf.state_path)
                      for store_id, cls in register(conf).items()}
        guard = web.Guard(conf.imports)
        for store in self.by_id.values():
            store.guard = guard
            if store.keystone:
                store.session = _sessions(conf, 'store_' + store.id, clients)
        if conf.stores.default not in self.by_id:
            raise cfg.ConfigFileValueError(f'[stores] default is {conf.stores.default}, which is not among the enabled ones')
        self.default = self.by_id[conf.stores.default]
        ordered = sorted(self.by_id.values(), key=lambda store: (-store.conf.weight, store.id))
        #: id to its place among the stores: by weight, then by name
        self.rank = {store.id: place for place, store in enumerate(ordered)}

    def prepare(self):
        """Make every store ready."""
        for store in self.by_id.values():
            store.prepare()

    def __getitem__(self, store_id):
        return self.by_id[store_id]

    def writable(self, store_id):
        """The store that a request names, or the default one; ``BadRequest`` for an unknown or read-only one."""
        if not store_id:
            return self.default
        store = self.by_id.get(store_id)
        if store is None:
            raise errors.BadRequest(f"There is no store '{store_id}'.")
        if store.read_only:
            raise errors.BadRequest(f"The store '{store_id}' can only be read.")
        return store

    def taking(self, url):
        """The store for locations with a URL; ``BadRequest`` where there is none."""
        for store in self.by_id.values():
            if store.takes(url):
                store.check(url)
                return store
        raise errors.BadRequest(f"Invalid location: no store of this service takes '{url[:200]}'.")

    def ordered(self, locations, first=()):
        """The locations of an image whose stores are here, in the order in which they are to be tried."""
        return sorted((location for location in locations if location['store'] in self.by_id), key=lambda location: (
            first.index(location['store']) if location['store'] in first else len(first), self.rank[location['store']]))

    @property
    def ids(self):
        """Ids of all stores, in their configured order."""
        return list(self.by_id)
