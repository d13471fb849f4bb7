"""OAuth 2.0 client credentials (RFC 6749, section 4.4).

The client is an application credential with its secret, or a user with a certificate (RFC 8705), who gets a token that is bound
to it.
"""
import base64
import logging
import urllib.parse

from kodiak.common import api, certificates, errors
from kodiak.common.api import schema

from .. import client_certificates, issue
from .. import core as cores

LOG = logging.getLogger(__name__)
routes = api.Routes('OAuth 2.0', '/v3')


def _error(req, status, name, description):
    headers = {'Cache-Control': 'no-store', 'Pragma': 'no-cache'}
    if status == 401:
        headers['WWW-Authenticate'] = f'Keystone uri="{req.url}"'
    return api.Response({'error': name, 'error_description': description}, status=status, headers=headers)


def _client(req, form):
    kind, _, text = req.http.headers.get('Authorization', '').partition(' ')
    if kind.lower() == 'basic':
        try:
            name, _, secret = base64.b64decode(text, validate=True).decode().partition(':')
        except ValueError:
            return None, None
        return urllib.parse.unquote(name), urllib.parse.unquote(secret)
    return form.get('client_id'), form.get('client_secret')


BEARER = schema.obj({'access_token': schema.STRING, 'token_type': schema.STRING, 'expires_in': schema.INTEGER},
                    ['access_token', 'token_type', 'expires_in'])


@routes.post('/OS-OAUTH2/token', public=True, raw=True, response=BEARER, summary='Issue an OAuth 2.0 access token')
def token(req):
    """A token for an application credential or for a user with a certificate, in the words of OAuth 2.0."""
    form = dict(urllib.parse.parse_qsl(req.stream().read(req.app.conf.api.max_body_size).decode(errors='replace')))
    if not form.get('grant_type'):
        return _error(req, 400, 'invalid_request', 'The parameter grant_type is required.')
    if form['grant_type'] != 'client_credentials':
        return _error(req, 400, 'unsupported_grant_type', 'The OAuth 2.0 grant type is not supported.')
    core, offered = cores.of(req), req.app.conf.oauth2.oauth2_authn_methods
    name, secret = _client(req, form)
    der = certificates.shown(req.http.environ)
    try:
        # Who gives a secret means it, whatever certificate the connection may have.
        if name and secret and 'client_secret_basic' in offered:
            text, claims = issue.issue(core, {'identity': {'methods': ['application_credential'], 'application_credential': {
                'id': name, 'secret': secret}}})
        elif name and not secret and der is not None and 'tls_client_auth' in offered:
            text, claims = client_certificates.log_in(core, name, der)
        else:
            raise errors.Unauthorized(f'it gave neither of {", ".join(offered)}')
    except (errors.Unauthorized, errors.BadRequest) as error:
        # What was wrong is the operator's to know.
        LOG.info('OAuth 2.0 client %.64r was refused: %s', name, error.message)
        return _error(req, 401, 'invalid_client', 'Client authentication failed.')
    return api.Response({'access_token': text, 'token_type': 'Bearer', 'expires_in': int(claims.expires - claims.issued)},
                        headers={'Cache-Control': 'no-store', 'Pragma': 'no-cache'})
