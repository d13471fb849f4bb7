"""The metadata service: what guests read about themselves.

The network's metadata proxy says which server asks (``X-Instance-ID``) and proves it with an HMAC under a shared secret;
nothing here is reached with a token.
"""
import hashlib
import hmac
import re

from kodiak.common import wsgi
from kodiak.compute import guests, metadata, store
from kodiak.compute.agent import state

PASSWORD = re.compile(r'^openstack/(latest|20\d\d-\d\d-\d\d)/password$')
LONGEST_PASSWORD = 1024


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
        path = (environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')).strip('/')
        posted = environ['REQUEST_METHOD'] == 'POST' and PASSWORD.match(path)
        if environ['REQUEST_METHOD'] not in ('GET', 'HEAD') and not posted:
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
        if posted:
            return (*self._keep_password(environ, uuid), plain)
        if PASSWORD.match(path):
            return '200 OK', (spec.get('guest_password') or '').encode(), plain
        told = state.Spec.load(guests.instance(guest, row, {**spec, 'admin_password': None}, self.app.conf)['spec'])
        found = metadata.lookup(told, path)
        if found is None:
            return '404 Not Found', b'There is nothing here.\n', plain
        return '200 OK', found, 'application/json' if path.endswith('.json') else plain


    def _keep_password(self, environ, uuid):
        """Keep the password that a guest posts, once; its owner reads it with os-server-password."""
        length = environ.get('CONTENT_LENGTH') or '0'
        if not length.isdigit() or int(length) > LONGEST_PASSWORD:
            return '400 Bad Request', f'Request is too long: a password has at most {LONGEST_PASSWORD} bytes.\n'.encode()
        try:
            text = environ['wsgi.input'].read(int(length)).decode()
        except UnicodeDecodeError:
            return '400 Bad Request', b'A password is UTF-8 text.\n'

        def keep(connection):
            spec = store.spec(connection, uuid)
            if spec.get('guest_password'):
                return '409 Conflict', b'This server has a password. Its owner can clear it.\n'
            store.save_spec(connection, uuid, {**spec, 'guest_password': text})
            return '200 OK', b''
        return self.app.db.transact(keep)


def app_factory(global_conf, **local):
    """paste application: the metadata service."""
    return Metadata(wsgi.runtime_of(global_conf))
