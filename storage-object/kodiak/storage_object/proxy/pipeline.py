"""paste.deploy factories of the proxy and its filters, and what they share.

A pipeline's ``global_conf`` names the configuration by ``kodiak_runtime`` (:func:`kodiak.common.wsgi.load`).
"""
import os
import threading

from kodiak.common import authtoken, wsgi

from ..middleware import (
    auth,
    bulk,
    catch_errors,
    container_sync,
    copying,
    cors,
    customer_keys,
    dlo,
    encryption,
    formpost,
    listing_formats,
    quotas,
    s3_guard,
    simple,
    slo,
    staticweb,
    symlink,
    tempurl,
    versioning,
    versions_old,
)
from ..s3.api import S3
from ..s3.expiry import Expiry
from ..s3.keys import IdentityKeys, LocalKeys
from .app import Proxy
from .cache import Cache
from .http import Filter, Request, Response, is_true
from .rings import Rings

_lock = threading.Lock()
FILTERS = {
    'catch_errors': catch_errors.CatchErrors, 'healthcheck': simple.HealthCheck, 'crossdomain': simple.CrossDomain,
    'name_check': simple.NameCheck, 'domain_remap': simple.DomainRemap,
    'cors': cors.Cors, 'bulk': bulk.Bulk, 'tempurl': tempurl.TempUrl, 'formpost': formpost.FormPost,
    'staticweb': staticweb.StaticWeb, 'ratelimit': quotas.RateLimit, 'localauth': auth.Local, 'keystone': auth.Keystone,
    'account_acl': auth.AccountAcl, 'copy': copying.Copy, 'container_quotas': quotas.ContainerQuotas,
    'account_quotas': quotas.AccountQuotas, 'slo': slo.Slo, 'dlo': dlo.Dlo, 'versioned_writes': versions_old.VersionedWrites,
    'symlink': symlink.Symlink, 'listing_formats': listing_formats.ListingFormats, 'versioning': versioning.Versioning,
    's3_guard': s3_guard.S3Guard, 'encryption': encryption.Encryption,
    'customer_keys': customer_keys.CustomerKeys,
    'container_sync': container_sync.ContainerSync, 'etag_quoter': simple.EtagQuoter,
}
SHOWN = {
    'tempurl': {'methods': ['GET', 'HEAD', 'PUT', 'POST', 'DELETE'], 'allowed_digests': ['sha1', 'sha256', 'sha512'],
                'incoming_remove_headers': ['x-timestamp', 'x-open-expired'], 'incoming_allow_headers': [],
                'outgoing_remove_headers': ['x-object-meta-*'], 'outgoing_allow_headers': ['x-object-meta-public-*']},
    'domain_remap': {'default_reseller_prefix': 'AUTH'},
    'formpost': {'allowed_digests': ['sha1', 'sha256', 'sha512']}, 'staticweb': {},
    'bulk_upload': {'max_containers_per_extraction': bulk.MAX_CONTAINERS, 'max_failed_extractions': bulk.MAX_FAILED},
    'bulk_delete': {'max_deletes_per_request': bulk.MAX_DELETES, 'max_failed_deletes': bulk.MAX_FAILED},
    'slo': slo.LIMITS, 'dlo': {'max_segments': 100000}, 'symlink': {'symloop_max': symlink.MAX_LINKS, 'static_links': True},
    'versioned_writes': {'allowed_flags': ['x-versions-location', 'x-history-location']}, 'container_quotas': {},
    'object_versioning': {}, 'etag_quoter': {'enable_by_default': False}, 'container_sync': {'realms': {}},
    'account_quotas': {}, 'crossdomain': {}, 'ratelimit': {},
}


def make_filter(application, name, options):
    """One filter around an application."""
    if name != 's3':
        return FILTERS[name](application, options)
    keys, inner = [], application
    while isinstance(inner, Filter):
        if isinstance(inner, auth.Local):
            keys.append(LocalKeys(inner))
        elif isinstance(inner, auth.Keystone) and options.get('adapter') is not None:
            keys.append(IdentityKeys(options['adapter'], inner))
        inner = inner.application
    return S3(application, options, keys)


class Authtoken(Filter):
    """The common library's token middleware among these filters; it lets all pass and says who each is."""

    def __init__(self, application, middleware):
        super().__init__(application)
        self.middleware = middleware
        middleware.application = self._inner

    def _inner(self, environ, start_response):
        environ['kodiak.answer'] = answer = self.next(Request.of(environ))
        start_response(str(answer.status), [])
        return ()

    def handle(self, request):
        """Verify the token, if there is one; local tokens are another filter's."""
        environ = request.environ
        if 'kodiak.authorize' in environ or environ.get('HTTP_X_AUTH_TOKEN', '').startswith('AUTH_tk'):
            return self.next(request)
        answer = Response.from_wsgi(self.middleware, environ)
        return environ.pop('kodiak.answer', answer)


def assemble(proxy, filters):
    """A pipeline: ``[(name, options)]`` from the outside in, around the proxy."""
    application = proxy
    for name, options in reversed(filters):
        application = make_filter(application, name, options)
        _show(proxy, name)
    return _Edge(application, proxy)


def _show(proxy, name):
    for shown in {'bulk': ('bulk_upload', 'bulk_delete'), 'localauth': ('tempauth',),
                  'versioning': ('object_versioning',)}.get(name, (name,)):
        if shown in SHOWN:
            proxy.info[shown] = SHOWN[shown]
        elif shown == 's3':
            proxy.info['s3api'] = {'max_bucket_listing': 1000, 'max_parts_listing': 1000, 'max_upload_part_num': 10000,
                                   'max_multi_delete_objects': 1000, 'allow_multipart_uploads': True, 'min_segment_size': 5242880,
                                   's3_acl': False}
        elif shown == 'tempauth':
            proxy.info['tempauth'] = {'account_acls': True}


class _Edge:
    def __init__(self, application, proxy):
        self.application, self.proxy = application, proxy

    def __call__(self, environ, start_response):
        environ['kodiak.proxy'] = self.proxy
        # Who asks is for the filters to say, which not every request passes all of.
        for name in authtoken.ENVIRON:
            environ.pop(name, None)
        return self.application(environ, start_response)


def app_factory(global_conf, **local):
    """paste application: the proxy, from the configuration's rings."""
    from ..ring import Policies, Ring
    conf = wsgi.runtime_of(global_conf).conf
    folder = conf.storage.ring_path
    rings = Rings.load(folder, list(Policies(conf)), Ring)
    os.makedirs(conf.run_path, exist_ok=True)
    proxy = Proxy(rings, cache=Cache(os.path.join(conf.run_path, 'kodiak-object-proxy.changes')),
                  account_management=is_true(local.get('allow_account_management', '')))
    with _lock:
        _pending.append(proxy)
    return proxy


_pending = []


def filter_factory(global_conf, name, **local):
    """paste filter: the one called ``name`` in :data:`FILTERS`, with its options."""
    if name == 'container_sync':
        local.setdefault('realms', wsgi.runtime_of(global_conf).conf.storage.sync_realms)

    def wrap(application):
        if _pending:
            _show(_pending[-1], name)
        return make_filter(application, name, local)
    return wrap


def edge_factory(global_conf, **local):
    """paste filter, outermost: lets filters see the proxy."""
    return lambda application: _Edge(application, _pending.pop())


def s3_factory(global_conf, **local):
    """paste filter: the S3 API, with identity's EC2 credentials and the local users that stand further in."""
    def wrap(application):
        conf = wsgi.runtime_of(global_conf).conf
        adapter = authtoken.Remote(conf)._adapter if conf[authtoken.GROUP].auth_type else None
        made = make_filter(application, 's3', {**local, 'adapter': adapter})
        wsgi.runtime_of(global_conf).background.append(made.logs)
        if is_true(local.get('lifecycle', 'true')) and _pending:
            wsgi.runtime_of(global_conf).background.append(Expiry(made, _pending[-1]))
        return made
    return wrap


def authtoken_factory(global_conf, **local):
    """paste filter: tokens of identity."""
    runtime = wsgi.runtime_of(global_conf)
    runtime.conf.set_override('delay_auth_decision', True, group=authtoken.GROUP)
    return lambda application: Authtoken(application, authtoken.build(
        None, runtime.conf, feed=getattr(runtime, 'feed', None), service_type='object-store'))
