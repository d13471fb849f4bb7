"""The metadata service: what guests read about themselves, and the password that they report.

The network's metadata proxy says which server asks (``X-Instance-ID``) and proves it with an HMAC under a shared secret;
nothing here is reached with a token.
"""
import hashlib
import hmac
import re

from kodiak.common import errors, wsgi
from kodiak.common.api import schema
from kodiak.compute import guests, metadata, store
from kodiak.compute.agent import state

PLAIN = 'text/plain; charset=UTF-8'
PASSWORD = re.compile(r'^openstack/(latest|\d{4}-\d\d-\d\d)/password$')
#: An encrypted password is base64 of one RSA block.
LONGEST_PASSWORD = 1024


class Metadata:
    """The WSGI application."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        environ['kodiak.route'] = 'metadata'
        try:
            status, (body, kind) = '200 OK', self._answer(environ)
        except errors.Error as error:
            status, body, kind = f'{error.code} {error.title}', error.message.encode() + b'\n', PLAIN
        start_response(status, [('Content-Type', kind), ('Content-Length', str(len(body)))])
        return [body]

    def _answer(self, environ):
        path = (environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')).strip('/')
        uuid, project = self._caller(environ)
        with self.app.db.read() as connection:
            row = store.get(connection, uuid)
            guest = guests.get(connection, uuid, row['host']) if row and row['host'] else None
            spec = store.spec(connection, uuid) if row else {}
        if row is None or row['deleted'] or guest is None or (project and project != row['project_id']):
            raise errors.NotFound('There is no such instance.')
        method = environ['REQUEST_METHOD']
        if PASSWORD.match(path):
            return self._password(environ, uuid) if method == 'POST' else ((spec.get('guest_password') or '').encode(), PLAIN)
        if method not in ('GET', 'HEAD'):
            raise errors.MethodNotAllowed('Only GET is answered here.')
        told = state.Spec.load(guests.instance(guest, row, {**spec, 'admin_password': None}, self.app.conf)['spec'])
        found = metadata.lookup(told, path)
        if found is None:
            raise errors.NotFound('There is nothing here.')
        return found, 'application/json' if path.endswith('.json') else PLAIN

    def _caller(self, environ):
        uuid = environ.get('HTTP_X_INSTANCE_ID', '')
        if not uuid:
            raise errors.BadRequest('X-Instance-ID header is missing from request.')
        signature = environ.get('HTTP_X_INSTANCE_ID_SIGNATURE', '')
        if not any(_signed(uuid, signature, secret) for secret in self.app.conf.metadata.shared_secret if secret):
            raise errors.Forbidden('Invalid proxy request signature.')
        return uuid, environ.get('HTTP_X_TENANT_ID', '')

    def _password(self, environ, uuid):
        length = schema.natural(environ.get('CONTENT_LENGTH') or '0')
        if length is None or length > LONGEST_PASSWORD:
            raise errors.BadRequest(f'A password has at most {LONGEST_PASSWORD} bytes.')
        try:
            text = environ['wsgi.input'].read(length).decode('ascii')
        except UnicodeError:
            raise errors.BadRequest('An encrypted password is base64.') from None

        def write(connection):
            found = store.spec(connection, uuid)
            if found.get('guest_password'):
                raise errors.Conflict('The password was reported before.')
            store.save_spec(connection, uuid, {**found, 'guest_password': text})
        self.app.db.transact(write)
        return b'', PLAIN


def _signed(uuid, signature, secret):
    expected = hmac.new(secret.encode(), uuid.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode('latin-1', 'replace'))


def app_factory(global_conf, **local):
    """paste application: the metadata service."""
    return Metadata(wsgi.runtime_of(global_conf))
