"""Logging in through an identity provider: by what a client brings from it, or in the browser for a dashboard."""
import time
import urllib.parse

import sqlalchemy as sa

from kodiak.common import api, errors

from .. import core as cores
from .. import federation, issue, oidc
from ..models import identity_providers, protocols
from . import browsers, saml, tokens

routes = api.Routes('single sign-on', '/v3')

AUTH = '/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth'
BROWSER = '/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso'


def _token(core, idp_id, protocol_id, claims):
    issued = time.time()
    user, said = federation.log_in(core, idp_id, protocol_id, oidc.assertion(claims), claims['iss'])
    return issue.issue_for_federation(core, user, said, protocol_id, issued)


def _speaks_saml(req, idp_id, protocol_id):
    with req.db.read() as connection:
        federation.find(connection, idp_id, protocol_id)
    return cores.of(req).saml.serves(idp_id, protocol_id)


def _by_bearer(req, idp_id, protocol_id):
    core = cores.of(req)
    kind, _, text = req.http.headers.get('Authorization', '').partition(' ')
    if kind.lower() != 'bearer' or not text:
        raise errors.Unauthorized('The request needs an access token of the identity provider (Authorization: Bearer).')
    text, claims = _token(core, idp_id, protocol_id, core.oidc.of(idp_id).of_bearer(text.strip()))
    return api.Response(issue.render(core, claims), headers={'X-Subject-Token': text, 'Vary': 'X-Auth-Token'})


@routes.post(AUTH, public=True, status=201, response=tokens.TOKEN, summary='Log in with what an identity provider has signed')
def post_auth(req, idp_id, protocol_id):
    """An unscoped token for whom the access token (OpenID Connect) or the envelope in the body (SAML, ECP) stands for."""
    if _speaks_saml(req, idp_id, protocol_id):
        return saml.by_envelope(req, idp_id, protocol_id)
    return _by_bearer(req, idp_id, protocol_id)


@routes.get(AUTH, public=True, status=201, response=tokens.TOKEN, summary='Log in with what an identity provider has signed')
def get_auth(req, idp_id, protocol_id):
    """As POST. A client that speaks ECP is given the question that it takes to its provider."""
    if _speaks_saml(req, idp_id, protocol_id):
        return saml.ask(req, idp_id, protocol_id)
    return _by_bearer(req, idp_id, protocol_id)


def _finish(req, core, idp_id, protocol_id):
    kept = browsers.kept(req, [idp_id, protocol_id])
    # The browser that comes back must be the one that was sent.
    if not kept or kept['state'] != req.http.args.get('state'):
        raise browsers.stranger()
    text, _ = _token(core, idp_id, protocol_id, core.oidc.of(idp_id).finish(req.http.args['code'], kept, req.url))
    return browsers.finish(req, kept['origin'], text)


@routes.get(BROWSER, public=True, summary='Log a browser in through an identity provider')
def browser(req, idp_id, protocol_id):
    """Sends the browser to the provider, and back to the dashboard (``origin``) with an unscoped token."""
    core = cores.of(req)
    if _speaks_saml(req, idp_id, protocol_id):
        return saml.send(req, idp_id, protocol_id, browsers.origin(req))
    provider = core.oidc.of(idp_id)
    if 'code' in req.http.args:
        return _finish(req, core, idp_id, protocol_id)
    if 'error' in req.http.args:
        raise errors.Unauthorized('The identity provider has not confirmed who you are.')
    origin = browsers.origin(req)
    url, kept = provider.begin(req.url)
    return browsers.send(req, url, {**kept, 'origin': origin}, [idp_id, protocol_id])


@routes.post(BROWSER, public=True, raw=True, summary='Where a browser brings the answer of an identity provider (SAML)')
def answered(req, idp_id, protocol_id):
    """Takes the form with ``SAMLResponse``, and sends the browser to the dashboard with an unscoped token."""
    if not _speaks_saml(req, idp_id, protocol_id):
        raise errors.NotFound(f'The protocol {protocol_id} of identity provider {idp_id} is none of SAML.')
    return saml.by_form(req, idp_id, protocol_id)


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
