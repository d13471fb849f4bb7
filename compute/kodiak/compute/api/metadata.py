"""The metadata service: what guests read about themselves.

The network's metadata proxy says which server asks (``X-Instance-ID``) and proves it with an HMAC under a shared secret;
nothing here is reached with a token.
"""
import hashlib
import hmac

from kodiak.common import wsgi
from kodiak.compute import guests, metadata, store
from kodiak.compute.agent import state


class Metadata:
    """The WSGI application."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        status, body, kind = self._answer(environ)
        start_response(status, [('Content-Type', kind), ('Content-Length', str(len(body)))])
        return [body]

    def _answer(self, environ):
        plain = 'text/plain; charset=UTF-8'
        environ['kodiak.route'] = 'metadata'
        if environ['REQUEST_METHOD'] not in ('GET', 'HEAD'):
            return '405 Method Not Allowed', b'Only GET is answered here.\n', plain
        uuid, project = environ.get('HTTP_X_INSTANCE_ID', ''), environ.get('HTTP_X_TENANT_ID', '')
        if not uuid:
            return '400 Bad Request', b'X-Instance-ID header is missing from request.\n', plain
        secret = self.app.conf.metadata.shared_secret
        expected = hmac.new(secret.encode(), uuid.encode(), hashlib.sha256).hexdigest()
        if not secret or not hmac.compare_digest(expected.encode(), environ.get('HTTP_X_INSTANCE_ID_SIGNATURE', '').encode(
                'latin-1', 'replace')):
            return '403 Forbidden', b'Invalid proxy request signature.\n', plain
        with self.app.db.read() as connection:
            row = store.get(connection, uuid)
            guest = guests.get(connection, uuid, row['host']) if row and row['host'] else None
            spec = store.spec(connection, uuid) if row else {}
        if row is None or row['deleted'] or guest is None or (project and project != row['project_id']):
            return '404 Not Found', b'There is no such instance.\n', plain
        told = state.Spec.load(guests.instance(guest, row, {**spec, 'admin_password': None}, self.app.conf)['spec'])
        path = environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')
        found = metadata.lookup(told, path.strip('/'))
        if found is None:
            return '404 Not Found', b'There is nothing here.\n', plain
        return '200 OK', found, 'application/json' if path.endswith('.json') else plain


def app_factory(global_conf, **local):
    """paste application: the metadata service."""
    return Metadata(wsgi.runtime_of(global_conf))
