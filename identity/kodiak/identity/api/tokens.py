"""Tokens: issue, validate, revoke; and what a token can reach."""
import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common import tokens as signed
from kodiak.common.api import schema

from .. import core as cores
from .. import issue, roles
from ..models import projects
from . import domains as domain_api
from . import kit, rules
from . import projects as project_api

routes = api.Routes('tokens', '/v3')

AUTH = schema.obj({
    'identity': schema.obj({'methods': schema.array(schema.STRING, minItems=1)}, ['methods'], extra=True),
    'scope': {'type': ['object', 'string']}}, ['identity'], extra=True)
TOKEN = schema.wrap('token', schema.obj({
    'methods': schema.array(schema.STRING), 'user': schema.obj({'id': schema.STRING}, ['id'], extra=True),
    'audit_ids': schema.array(schema.STRING), 'expires_at': schema.TIME, 'issued_at': schema.TIME}, ['user'], extra=True))
SUBJECT = '((rule:admin_required or rule:system_reader) or rule:service_role) or user_id:%(target.token.user_id)s'


class Http:
    """What a method that checks the whole request sees of it."""

    def __init__(self, req):
        query = req.http.query_string.decode('latin-1')
        self.method, self.headers, self.environ = req.http.method, req.http.headers, req.http.environ
        self.url = req.url + ('?' + query if query else '')


@routes.post('/auth/tokens', public=True, body=schema.obj({'auth': AUTH}, ['auth'], extra=True), response=TOKEN, status=201,
             query={'nocatalog': schema.STRING}, summary='Issue a token')
def create(req):
    """Authenticate and issue a token."""
    core = cores.of(req)
    text, claims = issue.issue(core, req.body['auth'], Http(req))
    return api.Response(issue.render(core, claims, 'nocatalog' not in req.query), headers={
        'X-Subject-Token': text, 'Vary': 'X-Auth-Token'})


def load(req):
    """The subject token as a policy target; ``req.subject`` is ``(text, claims)``."""
    core = cores.of(req)
    text = req.http.headers.get('X-Subject-Token')
    if not text:
        raise kit.told('Could not find token: the header X-Subject-Token names none.')
    expired = req.http.args.get('allow_expired', '').lower() in ('1', 'true', 'yes', 'on', 't', 'y')
    claims = core.state.claims(text, core.conf.token.allow_expired_window if expired else 0)
    if claims is None:
        raise kit.told('Could not find token.')
    req.subject = (text, claims)
    return {'target.token.user_id': claims.user_id}


@routes.get('/auth/tokens', rule='identity:validate_token', default=SUBJECT, load=load, response=TOKEN,
            query={'nocatalog': schema.STRING, 'allow_expired': schema.STRING}, summary='Validate a token, and show it')
def show(req):
    """Validate a token."""
    text, claims = req.subject
    rules_wanted = (claims.extra.get('app_cred') or {}).get('access_rules') is not None
    if rules_wanted and not req.http.headers.get('OpenStack-Identity-Access-Rules'):
        # A middleware that doesn't know access rules would let everything pass.
        raise errors.Unauthorized()
    return api.Response(issue.render(cores.of(req), claims, 'nocatalog' not in req.query), headers={
        'X-Subject-Token': text, 'Vary': 'X-Auth-Token'})


@routes.delete('/auth/tokens', rule='identity:revoke_token', load=load,
               default=f'{rules.ANY_ADMIN} or user_id:%(target.token.user_id)s', summary='Revoke a token')
def revoke(req):
    """Revoke one token."""
    core = cores.of(req)
    core.db.transact(core.revoke, {'audit_id': req.subject[1].audit_id})
    core.state.look()


@routes.get('/auth/tokens/OS-PKI/revoked', rule='identity:revocation_list', default=rules.no_domain(rules.SERVICE),
            summary='List revoked tokens (gone)')
def revoked(req):
    """410: there is no such list, tokens are not stored."""
    raise errors.Gone('Tokens are not stored; see GET /v3/OS-REVOKE/events.')


def certificates(req):
    """410: certificates were for tokens that are long gone."""
    raise errors.Gone('There are no PKI tokens any more, and no certificates for them.')


for _name in ('ca', 'certificates'):
    routes.get(f'/OS-SIMPLE-CERT/{_name}', public=True, summary='Certificates of PKI tokens (gone)')(certificates)


def _own(req):
    found = req.http.environ.get('kodiak.claims')
    if found is None:
        raise errors.Unauthorized()
    return found


@routes.get('/auth/catalog', rule='identity:get_auth_catalog', default=rules.ANYBODY,
            response=kit.many_of('catalog'), summary="The catalog for the request's token")
def catalog(req):
    """The catalog of a scoped token."""
    claims = _own(req)
    if not claims.scope:
        raise errors.Forbidden('Only a scoped token has a catalog.')
    text = issue.catalog_text(cores.of(req), claims)
    links = b'{"self":"' + req.url.encode() + b'","previous":null,"next":null}'
    return api.Response(b'{"catalog":' + text + b',"links":' + links + b'}')


def _reachable(req, connection):
    return roles.reachable(connection, req.ctx.user_id)


@routes.get('/auth/projects', rule='identity:get_auth_projects', default=rules.ANYBODY, response=kit.many_of('projects'),
            summary="Projects that the request's user can scope to")
def auth_projects(req):
    """Enabled projects in which the user has a role."""
    with req.db.read() as connection:
        ids = _reachable(req, connection)[0]
        above = projects.alias()
        rows = connection.execute(sa.select(projects).outerjoin(above, above.c.id == projects.c.domain_id).where(
            projects.c.id.in_(ids), projects.c.enabled.is_(True), sa.or_(above.c.id.is_(None), above.c.enabled.is_(True)))
            .order_by(projects.c.id)).all()
        return project_api.collection(req, connection, rows)


@routes.get('/auth/domains', rule='identity:get_auth_domains', default=rules.ANYBODY, response=kit.many_of('domains'),
            summary="Domains that the request's user can scope to")
def auth_domains(req):
    """Enabled domains on which the user has a role."""
    with req.db.read() as connection:
        ids = _reachable(req, connection)[1]
        rows = connection.execute(sa.select(projects).where(projects.c.id.in_(ids), projects.c.enabled.is_(True),
                                                            projects.c.is_domain.is_(True)).order_by(projects.c.id)).all()
        return kit.envelope(req, 'domains', [domain_api.view(req, row) for row in rows])


@routes.get('/auth/system', rule='identity:get_auth_system', default=rules.ANYBODY,
            response=kit.many_of('system'), summary="Whether the request's user can scope to the system")
def auth_system(req):
    """``[{"all": true}]`` for a user with a role on the system."""
    with req.db.read() as connection:
        system = _reachable(req, connection)[2]
    return {'system': [{'all': True}] if system else [], 'links': {'self': req.url}}


FEED = schema.obj({'keys': schema.array(schema.obj({'id': schema.STRING, 'public': schema.STRING}, ['id', 'public'])),
                   'events': schema.array({'type': 'object'}), 'sequence': schema.INTEGER, 'catalog_version': schema.INTEGER,
                   'catalog': schema.array({'type': 'object'})}, ['keys', 'events', 'sequence', 'catalog_version'])


@routes.get('/kodiak/feed', rule='identity:token_feed', default=rules.SERVICE,
            query={'since': {'type': 'integer', 'minimum': 0}, 'catalog': schema.INTEGER},
            response=FEED, summary='Public keys, revocation events and the catalog, for the token middleware')
def feed(req):
    """The feed of :class:`kodiak.common.authtoken.Feed`. ``catalog``: the version that the caller has; only another one is sent."""
    return cores.of(req).state.answer(req.query.get('since', 0), req.query.get('catalog'))


def event_view(event):
    """A revocation event as ``OS-REVOKE`` shows it."""
    names = {'user_id': 'user_id', 'project_id': 'project_id', 'domain_id': 'domain_id', 'role_id': 'role_id',
             'audit_id': 'audit_id', 'audit_chain_id': 'audit_chain_id', 'trust_id': 'OS-TRUST:trust_id',
             'access_token_id': 'OS-OAUTH1:access_token_id'}
    shown = {names[name]: value for name, value in event.items() if name in names}
    shown['issued_before'] = signed.iso(min(event['issued_before'], event['expires_at']))
    return shown


@routes.get('/OS-REVOKE/events', rule='identity:list_revoke_events', default=rules.no_domain(rules.SERVICE),
            query={'since': schema.STRING},
            response=kit.many_of('events'), summary='Revocation events')
def events(req):
    """Events that have not expired, from ``since`` on."""
    from .. import times
    since = times.seconds(times.parse(req.query['since'], 'since')) if req.query.get('since') else 0
    state = cores.of(req).state
    found = [event_view(event) for event in state.events if event['issued_before'] >= since]
    return {'events': found, 'links': {'self': req.url, 'previous': None, 'next': None}}
