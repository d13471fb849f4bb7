"""OAuth 2.0 client credentials (RFC 6749, section 4.4): the client is an application credential."""
import base64
import urllib.parse

from kodiak.common import api, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import issue

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
    """A token for an application credential, in the words of OAuth 2.0."""
    form = dict(urllib.parse.parse_qsl(req.stream().read(req.app.conf.api.max_body_size).decode(errors='replace')))
    if not form.get('grant_type'):
        return _error(req, 400, 'invalid_request', 'The parameter grant_type is required.')
    if form['grant_type'] != 'client_credentials':
        return _error(req, 400, 'unsupported_grant_type', 'The OAuth 2.0 grant type is not supported.')
    name, secret = _client(req, form)
    if not name or not secret:
        return _error(req, 401, 'invalid_client', 'Client authentication failed.')
    core = cores.of(req)
    try:
        text, claims = issue.issue(core, {'identity': {'methods': ['application_credential'], 'application_credential': {
            'id': name, 'secret': secret}}})
    except (errors.Unauthorized, errors.BadRequest):
        return _error(req, 401, 'invalid_client', 'Client authentication failed.')
    return api.Response({'access_token': text, 'token_type': 'Bearer', 'expires_in': int(claims.expires - claims.issued)},
                        headers={'Cache-Control': 'no-store', 'Pragma': 'no-cache'})
