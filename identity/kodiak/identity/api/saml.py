"""SAML over HTTP: as service provider (handlers that ``sso`` calls), and as identity provider of other clouds."""
import time
import urllib.parse

from kodiak.common import api, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import federation, issue, k2k
from ..saml import METADATA, ours
from . import browsers

routes = api.Routes('SAML', '/v3')

ENHANCED = 'application/vnd.paos+xml'
XML = 'text/xml'
#: A body that no answer of an identity provider fills.
LARGEST = 114688
ASKED = schema.obj({'auth': schema.obj({
    'identity': schema.obj({
        'methods': schema.array({'type': 'string', 'enum': ['token']}, minItems=1),
        'token': schema.obj({'id': schema.STRING}, ['id'], extra=True)}, ['methods', 'token'], extra=True),
    'scope': schema.obj({'service_provider': schema.obj({'id': schema.STRING}, ['id'], extra=True)}, ['service_provider'],
                        extra=True)}, ['identity', 'scope'], extra=True)}, ['auth'], extra=True)


def _body(req):
    data = req.stream().read(LARGEST + 1)
    if len(data) > LARGEST:
        raise errors.RequestTooLarge(f'The body has more than {LARGEST} bytes.')
    return data


def _token(core, idp_id, protocol_id, asserted):
    issued = time.time()
    core.saml.once(core.db, asserted)
    user, said = federation.log_in(core, idp_id, protocol_id, asserted.for_mapping(), asserted.issuer)
    return issue.issue_for_federation(core, user, said, protocol_id, issued, asserted.session_end)


def ask(req, idp_id, protocol_id):
    """The question that an enhanced client takes to its identity provider."""
    core = cores.of(req)
    if ENHANCED not in req.http.headers.get('Accept', ''):
        raise errors.Unauthorized(f'Logging in with SAML here needs a client that speaks ECP (Accept: {ENHANCED}).')
    url = ours.auth_url(core, idp_id, protocol_id)
    envelope = core.saml.ask_through_client(
        idp_id, url, lambda request_id: browsers.seal(req, {'id': request_id}, ['ecp', idp_id, protocol_id]))
    return api.Response(envelope, status=200, media_type=ENHANCED, headers={'Cache-Control': 'no-store'})


def by_envelope(req, idp_id, protocol_id):
    """A token for who brings an answer in a SOAP envelope: one to :func:`ask`, or one of another cloud, which nobody asked for."""
    core = cores.of(req)
    root, state = core.saml.part('answers').unwrap(_body(req))
    kept = browsers.unseal(req, state or '', ['ecp', idp_id, protocol_id])
    request_id = kept['id'] if kept else None
    # Another cloud doesn't know what we call ourselves, only where we are.
    asserted = core.saml.read(idp_id, root, ours.auth_url(core, idp_id, protocol_id), request_id,
                              audience=request_id is not None)
    text, claims = _token(core, idp_id, protocol_id, asserted)
    return api.Response(issue.render(core, claims), headers={'X-Subject-Token': text, 'Vary': 'X-Auth-Token'})


def send(req, idp_id, protocol_id, origin):
    """Send a browser to its identity provider."""
    core = cores.of(req)
    url, request_id = core.saml.begin(idp_id, ours.browser_url(core, idp_id, protocol_id))
    return browsers.send(req, url, {'id': request_id, 'origin': origin}, [idp_id, protocol_id])


def by_form(req, idp_id, protocol_id):
    """A browser brings the answer in a form."""
    core = cores.of(req)
    try:
        form = urllib.parse.parse_qs(_body(req).decode('ascii'), max_num_fields=10)
    except ValueError:
        raise errors.BadRequest('The body is no form.') from None
    if 'SAMLResponse' not in form:
        raise errors.BadRequest('The form has no field SAMLResponse.')
    kept = browsers.kept(req, [idp_id, protocol_id])
    if kept is None:
        if 'again' in form:
            raise browsers.stranger()
        # The form was posted by a page of the provider, so the browser has kept our cookie back. A page of ours gets it.
        return browsers.page('', {'SAMLResponse': form['SAMLResponse'][0], 'again': '1'})
    answers, documents = core.saml.part('answers'), core.saml.part('documents')
    root = documents.parse(answers.decode(form['SAMLResponse'][0]), 'Response')
    asserted = core.saml.read(idp_id, root, ours.browser_url(core, idp_id, protocol_id), kept['id'])
    text, _ = _token(core, idp_id, protocol_id, asserted)
    return browsers.finish(req, kept['origin'], text)


@routes.get(METADATA.removeprefix('/v3'), public=True, summary='The SAML metadata of this cloud')
def show_metadata(req):
    """What this cloud is called, its certificates and URLs, for identity providers and for other clouds."""
    try:
        return api.Response(ours.metadata(cores.of(req)), media_type=XML)
    except errors.NotImplementedHere as error:
        # A cloud that doesn't speak SAML has no such document.
        raise errors.NotFound(error.message) from None


def _assertion(req):
    core, asked = cores.of(req), req.body['auth']
    claims = k2k.claims_of(core, asked['identity']['token']['id'])
    with req.db.read() as connection:
        provider = k2k.provider(connection, asked['scope']['service_provider']['id'])
    return k2k.response(core, claims, provider), provider


def _xml(core, root, provider):
    return api.Response(core.saml.part('documents').write(root), media_type=XML, headers={
        'X-sp-url': provider.sp_url, 'X-auth-url': provider.auth_url, 'Cache-Control': 'no-store'})


@routes.post('/auth/OS-FEDERATION/saml2', public=True, body=ASKED, summary='A SAML assertion for another cloud')
def assertion(req):
    """An assertion that speaks for a token's user to a service provider."""
    root, provider = _assertion(req)
    return _xml(cores.of(req), root, provider)


@routes.post('/auth/OS-FEDERATION/saml2/ecp', public=True, body=ASKED, summary='A SAML assertion for another cloud, in an envelope')
def enveloped(req):
    """As above, in the SOAP envelope that an enhanced client posts to the other cloud."""
    core = cores.of(req)
    root, provider = _assertion(req)
    return _xml(core, core.saml.part('assertions').enveloped(root, provider.relay_state_prefix), provider)
