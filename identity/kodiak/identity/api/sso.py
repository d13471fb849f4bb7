"""Logging in through an identity provider: by its access token, or in the browser for a dashboard."""
import html
import time
import urllib.parse

import orjson
import sqlalchemy as sa
from cryptography import fernet

from kodiak.common import api, errors

from .. import core as cores
from .. import federation, issue, oidc
from ..models import identity_providers, protocols
from . import tokens

routes = api.Routes('single sign-on', '/v3')

COOKIE = 'kodiak_sso'
LIFE = 600
AUTH = '/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth'
BROWSER = '/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso'
PAGE = """<!DOCTYPE html>
<html><head><title>Logging in</title></head><body>
<form id="sso" action="{origin}" method="post"><input type="hidden" name="token" value="{token}">
<noscript><button type="submit">Continue</button></noscript></form>
<script>document.getElementById('sso').submit()</script></body></html>
"""


def _token(core, idp_id, protocol_id, claims):
    issued = time.time()
    user, said = federation.log_in(core, idp_id, protocol_id, oidc.assertion(claims), claims['iss'])
    return issue.issue_for_federation(core, user, said, protocol_id, issued)


def _by_bearer(req, idp_id, protocol_id):
    core = cores.of(req)
    kind, _, text = req.http.headers.get('Authorization', '').partition(' ')
    if kind.lower() != 'bearer' or not text:
        raise errors.Unauthorized('The request needs an access token of the identity provider (Authorization: Bearer).')
    with req.db.read() as connection:
        federation.find(connection, idp_id, protocol_id)
    text, claims = _token(core, idp_id, protocol_id, core.oidc.of(idp_id).of_bearer(text.strip()))
    return api.Response(issue.render(core, claims), headers={'X-Subject-Token': text, 'Vary': 'X-Auth-Token'})


@routes.post(AUTH, public=True, status=201, response=tokens.TOKEN, summary='Log in with an access token of an identity provider')
def post_auth(req, idp_id, protocol_id):
    """An unscoped token for whom the access token stands for."""
    return _by_bearer(req, idp_id, protocol_id)


@routes.get(AUTH, public=True, status=201, response=tokens.TOKEN, summary='Log in with an access token of an identity provider')
def get_auth(req, idp_id, protocol_id):
    """As POST."""
    return _by_bearer(req, idp_id, protocol_id)


def _browser(req, idp_id, protocol_id):
    core = cores.of(req)
    with req.db.read() as connection:
        federation.find(connection, idp_id, protocol_id)
    provider = core.oidc.of(idp_id)
    if 'code' in req.http.args:
        return _finish(req, core, provider, idp_id, protocol_id)
    if 'error' in req.http.args:
        raise errors.Unauthorized('The identity provider has not confirmed who you are.')
    origin = req.http.args.get('origin')
    if origin is None:
        raise errors.BadRequest('The parameter origin is missing.')
    if origin not in core.conf.federation.trusted_dashboard:
        raise errors.Unauthorized(f'{origin} is not a trusted dashboard host.')
    url, kept = provider.begin(req.url)
    kept.update(origin=origin, until=time.time() + LIFE, at=[idp_id, protocol_id])
    value = core.crypt.encrypt(orjson.dumps(kept).decode())
    return api.Response(None, status=302,
                        headers={'Location': url, 'Cache-Control': 'no-store', 'Set-Cookie': _cookie(req, value, LIFE)})


def _cookie(req, value, life):
    secure = '; Secure' if req.base_url.startswith('https:') else ''
    return f'{COOKIE}={value}; Path=/v3/auth/OS-FEDERATION; Max-Age={life}; HttpOnly; SameSite=Lax{secure}'


def _finish(req, core, provider, idp_id, protocol_id):
    try:
        kept = orjson.loads(core.crypt.decrypt(req.http.cookies.get(COOKIE, '')))
    except (fernet.InvalidToken, ValueError):
        kept = {}
    # The browser that comes back must be the one that was sent.
    if not kept or kept['state'] != req.http.args.get('state') or kept['until'] < time.time() or kept['at'] != [idp_id,
                                                                                                                protocol_id]:
        raise errors.Unauthorized('This is not the browser that began to log in here, or it took too long. Try again.')
    text, _ = _token(core, idp_id, protocol_id, provider.finish(req.http.args['code'], kept, req.url))
    page = PAGE.format(origin=html.escape(kept['origin'], quote=True), token=html.escape(text, quote=True))
    return api.Response(page, media_type='text/html; charset=utf-8', headers={
        'Cache-Control': 'no-store', 'Set-Cookie': _cookie(req, '', 0), 'X-Frame-Options': 'DENY',
        'Referrer-Policy': 'no-referrer'})


@routes.get(BROWSER, public=True, summary='Log a browser in through an identity provider')
def browser(req, idp_id, protocol_id):
    """Sends the browser to the provider, and back to the dashboard (``origin``) with an unscoped token."""
    return _browser(req, idp_id, protocol_id)


@routes.get('/auth/OS-FEDERATION/websso/{protocol_id}', public=True, summary='Log a browser in through the only identity provider')
def browser_of_protocol(req, protocol_id):
    """As above, where one enabled provider has the protocol."""
    with req.db.read() as connection:
        found = connection.execute(sa.select(protocols.c.idp_id).join_from(protocols, identity_providers).where(
            protocols.c.id == protocol_id, identity_providers.c.enabled.is_(True))).scalars().all()
    if not found:
        raise errors.NotFound(f'No identity provider has protocol {protocol_id}.')
    if len(found) > 1:
        raise errors.BadRequest(f'Several identity providers have protocol {protocol_id}: name one in the path.')
    query = urllib.parse.urlencode(list(req.http.args.items(multi=True)))
    path = BROWSER.format(idp_id=urllib.parse.quote(found[0], safe=''), protocol_id=urllib.parse.quote(protocol_id, safe=''))
    return api.Response(None, status=302, headers={'Location': f'{req.base_url}/v3{path}?{query}'})
