"""Tokens: from an authentication request to a signed text, and from claims to what the API shows."""
import base64
import datetime
import time
import uuid

import orjson
import sqlalchemy as sa

from kodiak.common import authtoken, errors, tokens

from . import catalog, changes, login, notices, people, receipts, roles, times, trusts
from .models import NO_DOMAIN, access_rules, app_credential_rules

SCOPES = ('project', 'domain', 'system', 'unscoped', 'OS-TRUST:trust')


def issue(core, auth, http=None):
    """Authenticate, scope, sign.

    :param auth: ``auth`` of the request. :param http: the request, for methods that sign it. :returns: ``(text, claims)``.
    """
    core.state.look()
    # Taken before anything is read: a revocation that comes while this runs covers the token.
    issued = time.time()
    scope = scope_of(auth)
    attempt = login.authenticate(core, auth['identity'], scope, http)
    with core.db.read() as connection:
        claims = after(core, claim(core, connection, attempt, scope, issued))
    if attempt.uses_trust:
        core.db.transact(trusts.use, attempt.uses_trust)
    text = tokens.sign(claims, *core.ring.signing(core.state.revoked_keys))
    if len(text) > tokens.MAX_LENGTH:
        raise errors.Forbidden('The token would be too long: the user has too many roles there.')
    return text, claims


def issue_for_credential(core, user_id, project_id, content):
    """A token for who has proved to hold an EC2 credential; ``content`` may name what it was delegated by."""
    core.state.look()
    issued = time.time()
    attempt = login.Attempt(None)
    with core.db.read() as connection:
        user = people.by_id(connection, user_id)
        if user is None or not people.enabled(core.conf, user):
            raise errors.Unauthorized()
        attempt.user, attempt.methods = user, ['ec2credential']
        scope = {'project': {'id': project_id}}
        if content.get('app_cred_id'):
            attempt.app_cred, scope = login.application_credential.valid(connection, content['app_cred_id'], attempt), None
        elif content.get('trust_id'):
            scope = {'OS-TRUST:trust': {'id': content['trust_id']}}
        claims = after(core, claim(core, connection, attempt, scope, issued))
    notices.authenticated(core, 'success', attempt.user)
    return tokens.sign(claims, *core.ring.signing(core.state.revoked_keys)), claims


def issue_for_certificate(core, user, binding, until):
    """A token for a user whose certificate has been checked, in its default project, bound to the certificate.

    :param binding: see :func:`kodiak.common.certificates.binding`. :param until: seconds since the epoch at which the certificate
        ends. :raises Unauthorized: if the user has no default project, no role in it, or needs several factors.
    """
    issued = time.time()
    attempt = login.Attempt({'project': {'id': user['default_project_id']}})
    attempt.user, attempt.methods, attempt.expires = user, ['oauth2_credential'], until
    attempt.extra['bound'] = binding
    receipts.check(core, attempt)
    with core.db.read() as connection:
        claims = after(core, claim(core, connection, attempt, attempt.scope, issued))
    notices.authenticated(core, 'success', user)
    return tokens.sign(claims, *core.ring.signing(core.state.revoked_keys)), claims


def issue_for_federation(core, user, said, method, issued, until=None):
    """An unscoped token for somebody whom an identity provider has confirmed; ``said``: what it says of that, or None; ``issued``:
    seconds since the epoch, from before anything was read; ``until``: those at which the session there ends, or None."""
    core.state.look()
    attempt = login.Attempt({'unscoped': {}})
    attempt.user, attempt.methods, attempt.expires = user, [method], until
    if said:
        attempt.extra['federation'] = said
    with core.db.read() as connection:
        claims = after(core, claim(core, connection, attempt, attempt.scope, issued))
    notices.authenticated(core, 'success', user, federation=said)
    return tokens.sign(claims, *core.ring.signing(core.state.revoked_keys)), claims


def after(core, claims):
    """Move ``issued`` behind the events that would cover the new token: what was read already shows what they changed."""
    for event in list(core.state.revocations.covering(claims)):
        if event['issued_before'] < claims.issued + 2 * changes.REACH:
            claims.issued = max(claims.issued, event['issued_before'] + 1e-6)
    return claims


def scope_of(auth):
    """The scope that a request asks for: a dictionary with one key, or None where it leaves that open."""
    scope = auth.get('scope')
    if scope is None:
        return None
    if scope == 'unscoped':
        return {'unscoped': {}}
    asked = [name for name in SCOPES if name in scope] if isinstance(scope, dict) else []
    if len(asked) != 1:
        raise errors.BadRequest('Invalid input for field/attribute scope: it must name one of system, project, domain, '
                                'OS-TRUST:trust or unscoped.')
    if asked[0] != 'unscoped' and not isinstance(scope[asked[0]], dict):
        raise errors.BadRequest(f'Invalid input for field/attribute scope.{asked[0]}: it must be an object.')
    return scope


def new_audit_id():
    """A short random id, unlike a token harmless in a log."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b'=').decode()


def claim(core, connection, attempt, scope, issued):
    """The :class:`~kodiak.common.tokens.Claims` of the token that ``attempt`` has earned."""
    where, held = _place(core, connection, attempt, scope)
    user = attempt.user
    end = issued + core.conf.token.expiration
    if attempt.expires is not None:
        end = min(end, attempt.expires)
    audit = [new_audit_id()]
    if attempt.chain:
        audit.append(attempt.chain)
    password_expires = user['password_expires_at']
    if isinstance(password_expires, datetime.datetime):
        password_expires = times.stamp(password_expires)
    return tokens.Claims(
        user=[user['id'], user['name'], user['domain_id'], user['domain_name'], password_expires], scope=where, roles=held,
        methods=list(dict.fromkeys(attempt.methods)), audit_ids=audit, issued=issued, expires=end, extra=attempt.extra)


def _place(core, connection, attempt, scope):
    if attempt.app_cred is not None:
        return _of_app_cred(core, connection, attempt)
    if attempt.oauth is not None:
        return _of_oauth(core, connection, attempt)
    if attempt.parent is not None and attempt.parent.extra.get('app_cred'):
        attempt.extra['app_cred'] = attempt.parent.extra['app_cred']
        return attempt.parent.scope, attempt.parent.roles
    user_id = attempt.user['id']
    if scope is None:
        return _default(core, connection, attempt)
    if 'project' in scope:
        where = _project(core, connection, scope['project'])
        # Memberships of people from elsewhere run out.
        held = roles.in_project(core, connection, user_id, where, remember='federation' not in attempt.extra)
        return project_scope(where), _some(held, user_id, 'project', where.row['id'])
    if 'domain' in scope:
        where = _domain(core, connection, scope['domain'])
        held = roles.in_domain(core, connection, user_id, where.row['id'])
        return ['d', where.row['id'], where.row['name']], _some(held, user_id, 'domain', where.row['id'])
    if 'OS-TRUST:trust' in scope:
        return _of_trust(core, connection, attempt, scope['OS-TRUST:trust'])
    if 'system' in scope:
        if scope['system'].get('all') is not True:
            raise errors.BadRequest('Invalid input for field/attribute scope.system.all: it must be true.')
        return ['s'], _some(roles.in_system(core, connection, user_id), user_id, 'system', 'all')
    return None, []


def _of_trust(core, connection, attempt, asked):
    if not isinstance(asked.get('id'), str):
        raise errors.BadRequest('Invalid input for field/attribute scope.OS-TRUST:trust.id: it must be a string.')
    trust, where, held = trusts.scope(core, connection, attempt, asked['id'])
    if trust['remaining_uses'] is not None:
        attempt.uses_trust = trust['id']
    return (project_scope(where) if where is not None else None), held


def _some(held, user_id, kind, target):
    if not held:
        raise errors.Unauthorized(f'User {user_id} has no access to {kind} {target}.')
    return held


def project_scope(where):
    """The ``scope`` of claims for a project."""
    row, domain = where.row, where.domain
    if row['is_domain']:
        return ['p', row['id'], row['name'], None, None, True]
    return ['p', row['id'], row['name'], domain['id'], domain['name'], False]


def _default(core, connection, attempt):
    project_id = attempt.user['default_project_id']
    if project_id is None and attempt.parent is not None:
        user = people.by_id(connection, attempt.user['id'])
        project_id = user and user['default_project_id']
    if project_id:
        where = roles.place(core, connection, project_id)
        if where is not None and where.enabled and not where.row['is_domain']:
            held = roles.in_project(core, connection, attempt.user['id'], where)
            if held:
                return project_scope(where), held
    return None, []


def _project(core, connection, asked):
    if asked.get('id'):
        where = roles.place(core, connection, asked['id'])
    elif asked.get('name'):
        if not isinstance(asked.get('domain'), dict):
            raise errors.BadRequest('Invalid input for field/attribute scope.project.domain: a project that is named needs its '
                                    'domain.')
        domain = _domain(core, connection, asked['domain'])
        where = roles.place_by_name(core, connection, asked['name'], domain.row['id'])
    else:
        raise errors.BadRequest('Invalid input for field/attribute scope.project: it needs an id, or a name and a domain.')
    if where is None or not where.enabled:
        raise errors.Unauthorized(f"Could not find project: {asked.get('id') or asked.get('name')}.")
    return where


def _domain(core, connection, asked):
    if asked.get('id'):
        where = roles.place(core, connection, asked['id'])
    elif asked.get('name'):
        where = roles.place_by_name(core, connection, asked['name'], NO_DOMAIN)
    else:
        raise errors.BadRequest('Invalid input for field/attribute domain: it needs an id or a name.')
    if where is None or not where.row['is_domain'] or not where.enabled:
        raise errors.Unauthorized(f"Could not find domain: {asked.get('id') or asked.get('name')}.")
    return where


def _of_oauth(core, connection, attempt):
    access = attempt.oauth
    where = roles.place(core, connection, access.project_id)
    if where is None or not where.enabled:
        raise errors.Unauthorized()
    has = {role_id for role_id, _ in roles.in_project(core, connection, access.user_id, where)}
    if any(role_id not in has for role_id in access.role_ids):
        raise errors.Unauthorized()
    return project_scope(where), roles.graph(core, connection).in_token(access.role_ids)


def _of_app_cred(core, connection, attempt):
    row = attempt.app_cred
    where = roles.place(core, connection, row['project_id'])
    if where is None or not where.enabled:
        raise errors.Unauthorized()
    has = {role_id for role_id, _ in roles.in_project(core, connection, row['user_id'], where)}
    given = roles.graph(core, connection).in_token(row['role_ids'])
    if any(role_id not in has for role_id in row['role_ids']):
        raise errors.Unauthorized()
    shown = {'id': row['id'], 'name': row['name'], 'restricted': not row['unrestricted']}
    if row['restricted_access']:
        rules = connection.execute(
            sa.select(access_rules.c.id, access_rules.c.service, access_rules.c.method, access_rules.c.path)
            .join_from(app_credential_rules, access_rules).where(app_credential_rules.c.app_credential_id == row['id']))
        shown['access_rules'] = [{'id': rule.id, 'service': rule.service, 'method': rule.method, 'path': rule.path}
                                 for rule in rules]
    attempt.extra['app_cred'] = shown
    return project_scope(where), given


def render(core, claims, with_catalog=True):
    """The body of an answer about a token, as JSON text.

    :param with_catalog: scoped tokens show the catalog, unless ``nocatalog`` was asked for.
    """
    body = authtoken.info_of(claims)
    text = orjson.dumps(body)
    if not with_catalog:
        return text
    # {"token":{...}} with more members at its end
    more = core.state.texts.service_providers
    if claims.scope:
        more += b',"catalog":' + catalog_text(core, claims)
    return text[:-2] + more + b'}}' if more else text


def catalog_text(core, claims):
    """The catalog for a token, as JSON text; remembered for each project."""
    return catalog_for(core, claims.project_id, claims.user_id)


def catalog_for(core, project_id, user_id):
    """The catalog as JSON text for a project (or none)."""
    held = core.state.texts
    key = (project_id, user_id if held.by_user else None)
    found = held.texts.get(key)
    if found is None:
        without = None
        if project_id and held.filtered:
            with core.db.read() as connection:
                without = catalog.hidden(connection, project_id)
        found = core.state.remember(held.texts, key, catalog.substitute(held.catalog, project_id, user_id, without))
    return found
