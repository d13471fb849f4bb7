"""Who may what: users of identity (roles), local users (stand-alone), and access lists of containers and accounts."""
import base64
import hashlib
import hmac
import time

import orjson

from ..proxy import acl
from ..proxy.http import Fault, Filter, Response, error, quote

DOMAIN = 'X-Account-Sysmeta-Project-Domain-Id'
LISTS = ('X-Container-Read', 'X-Container-Write')


class Authorizer(Filter):
    """What both kinds share. ``identity`` of a request: dict with ``groups`` (set) and more, under ``kodiak.identity``."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.prefixes = [p.strip() for p in self.conf.get('reseller_prefix', 'AUTH_').split(',')]
        self.prefixes = [p if not p or p.endswith('_') else p + '_' for p in self.prefixes]

    def handle(self, request):
        """Find out who asks; the controllers ask whether that one may."""
        environ = request.environ
        if 'kodiak.authorize' not in environ:
            self.identify(request)
            environ['kodiak.authorize'] = self.authorize
        return self.next(request)

    def identify(self, request):
        """Set ``kodiak.identity`` where somebody is known."""

    def denied(self, request):
        """401 for nobody, 403 for somebody."""
        if request.environ.get('kodiak.identity'):
            return error(403)
        split = request.path.split('/')
        account = split[2] if len(split) > 2 else 'unknown'
        return error(401, headers={'Www-Authenticate': f'Swift realm="{quote(account)}"'})

    def authorize(self, request):
        """None, or the refusal."""
        if request.environ.get('kodiak.override') or request.method == 'OPTIONS':
            return None
        split = request.split()
        if split is None:
            return None
        _, account, container, name = split
        identity = request.environ.get('kodiak.identity')
        if identity and self.is_owner(request, identity, account, container):
            request.environ['kodiak.owner'] = True
            return None
        request.environ['kodiak.owner'] = False
        allowed = self.by_account_acl(request, identity, account, container)
        if allowed is not None:
            return None if allowed else self.denied(request)
        referrers, groups = acl.parse(request.environ.get('kodiak.acl'))
        reading = request.method in ('GET', 'HEAD')
        if reading and referrers and acl.referrer_allowed(request.headers.get('Referer'), referrers) and (
                name is not None or '.rlistings' in groups):
            return None
        if container is not None and identity and self.listed(request, identity, groups, account):
            return None
        return self.denied(request)

    def is_owner(self, request, identity, account, container):
        """Whether the account is theirs."""
        raise NotImplementedError

    def by_account_acl(self, request, identity, account, container):
        """True, False, or None where the account's list says nothing."""

    def listed(self, request, identity, groups, account):
        """Whether a container's list names them."""
        raise NotImplementedError


class Keystone(Authorizer):
    """Users of identity: the token middleware stands before this filter, and lets all pass (``delay_auth_decision``)."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        def roles(name, default):
            return {role.strip().lower() for role in self.conf.get(name, default).split(',')}
        self.operators = roles('operator_roles', 'admin,member,swiftoperator')
        self.readers = roles('reader_roles', 'reader')
        self.resellers = roles('reseller_admin_role', 'ResellerAdmin')
        self.system_readers = roles('system_reader_roles', '')
        # Of accounts with a prefix: the roles of which the service token of whoever asks must have one.
        self.service_roles = {prefix: roles(f'{prefix}service_roles', '') - {''} for prefix in self.prefixes}

    def identify(self, request):
        """From what the token middleware has set."""
        get = request.environ.get
        if get('HTTP_X_IDENTITY_STATUS') != 'Confirmed':
            return
        def roles_of(name):
            return {role.strip().lower() for role in get(name, '').split(',') if role}
        roles, served = roles_of('HTTP_X_ROLES'), get('HTTP_X_SERVICE_IDENTITY_STATUS') == 'Confirmed'
        request.environ['kodiak.identity'] = {
            'roles': roles, 'service_roles': roles_of('HTTP_X_SERVICE_ROLES') if served else set(),
            'user': get('HTTP_X_USER_ID'), 'user_name': get('HTTP_X_USER_NAME'),
            'project': get('HTTP_X_PROJECT_ID'), 'project_name': get('HTTP_X_PROJECT_NAME'),
            'project_domain': get('HTTP_X_PROJECT_DOMAIN_ID'),
            'default_domain': 'default' in (get('HTTP_X_USER_DOMAIN_ID'), ) and get('HTTP_X_PROJECT_DOMAIN_ID') == 'default',
            'reseller': bool(self.resellers & roles)}

    def handle(self, request):
        """As any; and keep of which domain an account's project is."""
        split = request.split()
        if 'kodiak.authorize' in request.environ or split is None or split[3] is not None:
            return super().handle(request)
        if request.method in ('PUT', 'POST'):
            self.identify(request)
            if identity := request.environ.get('kodiak.identity'):
                self._remember(request, split, identity)
        answer = super().handle(request)
        if split[2] is None and DOMAIN in answer.headers:
            answer.headers['X-Account-Project-Domain-Id'] = answer.headers[DOMAIN]
        return answer

    def _remember(self, request, split, identity):
        # Names in lists are those of the default domain alone: that an account is of another has to be known when it gets one.
        version, account, container, _ = split
        own = identity['project'] and any(account == prefix + identity['project'] for prefix in self.prefixes)
        if not own or not self.operators & identity['roles'] or not identity['project_domain']:
            return
        if container is None:
            request.headers[DOMAIN] = identity['project_domain']
        elif identity['project_domain'] != 'default' and any(name in request.headers for name in LISTS):
            known = request.environ['kodiak.proxy'].infos.get(request, account)
            if known['sysmeta'].get('project-domain-id') != identity['project_domain']:
                told = {DOMAIN: identity['project_domain']}
                self.next(request.sub('POST', f'/{version}/{account}', told, authorize=False)).drain()

    def is_owner(self, request, identity, account, container):
        """Resellers; operators of the project; readers who read."""
        if self.resellers & identity['roles']:
            request.environ['kodiak.reseller'] = True
            return True
        prefix = next((each for each in self.prefixes if identity['project'] and account == each + identity['project']), None)
        if prefix is None or (self.service_roles[prefix] and not self.service_roles[prefix] & identity['service_roles']):
            return False
        if container is None and request.method in ('PUT', 'DELETE'):
            return False
        if self.operators & identity['roles']:
            return True
        return bool(self.readers & identity['roles']) and request.method in ('GET', 'HEAD')

    def listed(self, request, identity, groups, account):
        """``project:user``, ids or (where user, project and account are in the default domain) names, ``*`` for any; or a role."""
        projects, users = {identity['project'], '*'}, {identity['user'], '*'}
        known = request.environ['kodiak.proxy'].infos.get(request, account)
        if identity['default_domain'] and known['sysmeta'].get('project-domain-id', 'default') == 'default':
            projects.add(identity['project_name'])
            users.add(identity['user_name'])
        projects.discard(None)
        for group in groups:
            project, colon, user = group.rpartition(':')
            if colon:
                if project in projects and user in users:
                    return True
            elif group.lower() in identity['roles']:
                return True
        return False


class Local(Authorizer):
    """Users of the configuration: ``user_<account>_<user> = <key> [group] ...`` with the groups ``.admin`` and ``.reseller_admin``.

    With ``<prefix>_require_group = <group>`` accounts of a prefix are open to who brings a service token, of a user in that group.
    ``GET /auth/v1.0`` with X-Auth-User and X-Auth-Key gives a token: signed with ``secret``, so that every process knows it.
    """

    LIFE = 86400
    LEVELS = ('admin', 'read-write', 'read-only')

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.users = {}
        for name, value in self.conf.items():
            for kind in ('user_', 'user64_'):
                if name.startswith(kind):
                    account, user = name[len(kind):].split('_', 1)
                    if kind == 'user64_':
                        account, user = (base64.b64decode(part + '==').decode() for part in (account, user))
                    key, *groups = value.split()
                    url = groups.pop() if groups and '://' in groups[-1] else None
                    self.users[f'{account}:{user}'] = (key, groups, url)
        self.secret = (self.conf.get('secret') or hashlib.sha256(repr(sorted(self.users.items())).encode()).hexdigest()).encode()
        self.url = self.conf.get('storage_url')

    def handle(self, request):
        """Tokens for ``/auth``, identities for the rest."""
        if request.path.startswith('/auth/'):
            return self.login(request)
        return super().handle(request)

    def account_of(self, user):
        """The account that a user's token leads to."""
        return self.prefixes[0] + user.split(':', 1)[0]

    def groups_of(self, user):
        """All groups of a user, their own names among them."""
        account = user.split(':', 1)[0]
        groups = {account, user, *self.users[user][1]}
        if '.admin' in groups:
            groups.discard('.admin')
            groups.update(prefix + account for prefix in self.prefixes)
        return groups

    def login(self, request):
        """``/auth/v1.0``."""
        parts = request.path.split('/')
        if len(parts) < 3 or parts[2] not in ('v1', 'v1.0'):
            return error(404 if request.method == 'GET' else 400)
        if request.method != 'GET':
            return error(405, headers={'Allow': 'GET'})
        get = request.headers.get
        user = get('X-Auth-User') or get('X-Storage-User') or ''
        key = get('X-Auth-Key') or get('X-Storage-Pass') or ''
        if len(parts) > 3 and parts[2] == 'v1' and ':' not in user:
            user = f'{parts[3]}:{user}'
        known = self.users.get(user)
        if known is None or not hmac.compare_digest(known[0].encode(), key.encode('latin-1')):
            return error(401, headers={'Www-Authenticate': 'Swift realm="unknown"'})
        token = self.token(user)
        url = known[2] or self.url or f'{request.environ["wsgi.url_scheme"]}://{get("Host")}'
        url = url if '/v1/' in url else f'{url}/v1/{self.account_of(user)}'
        return Response(200, b'', {'X-Auth-Token': token, 'X-Storage-Token': token, 'X-Storage-Url': url,
                                   'X-Auth-Token-Expires': str(self.LIFE)}, content_type='text/plain')

    def _sign(self, body):
        return hmac.new(self.secret, body.encode(), 'sha256').hexdigest()[:40]

    def token(self, user):
        """A new token."""
        body = base64.urlsafe_b64encode(orjson.dumps([user, int(time.time()) + self.LIFE])).decode().rstrip('=')
        return f'AUTH_tk{body}.{self._sign(body)}'

    def user_of(self, token):
        """Whose token it is; None."""
        body, _, signature = token.removeprefix('AUTH_tk').partition('.')
        if not signature or not hmac.compare_digest(self._sign(body).encode(), signature.encode('utf-8', 'replace')):
            return None
        user, expires = orjson.loads(base64.urlsafe_b64decode(body + '=' * (-len(body) % 4)))
        return user if expires > time.time() and user in self.users else None

    def identify(self, request):
        """By token."""
        token = request.headers.get('X-Auth-Token') or request.headers.get('X-Storage-Token')
        user = self.user_of(token) if token and token.startswith('AUTH_tk') else None
        if user:
            self.become(request, user)

    def become(self, request, user):
        """Let a request be a user's."""
        groups = self.groups_of(user)
        request.environ['REMOTE_USER'] = user
        request.environ['kodiak.identity'] = {'user': user, 'groups': groups, 'reseller': '.reseller_admin' in groups}

    def is_owner(self, request, identity, account, container):
        """The account's admins, and resellers."""
        if 'groups' not in identity:
            return False
        if identity['reseller'] and account.startswith(tuple(self.prefixes)):
            request.environ['kodiak.reseller'] = True
            return True
        if account not in identity['groups'] or not self._served(request, account):
            return False
        return container is not None or request.method not in ('PUT', 'DELETE')

    def _served(self, request, account):
        # Whether an account needs no service token, or has got one.
        prefix = next((each for each in sorted(self.prefixes, key=len, reverse=True) if account.startswith(each)), '')
        wanted = self.conf.get(prefix + 'require_group')
        if not wanted:
            return True
        user = self.user_of(request.headers.get('X-Service-Token') or '')
        return user is not None and wanted in self.groups_of(user)

    def by_account_acl(self, request, identity, account, container):
        """``X-Account-Access-Control``: admin, read-write, read-only."""
        proxy = request.environ.get('kodiak.proxy')
        if not identity or proxy is None or 'groups' not in identity:
            return None
        text = proxy.infos.get(request, account)['sysmeta'].get('core-access-control')
        if not text:
            return None
        levels = orjson.loads(text.encode('latin-1'))
        for level in self.LEVELS:
            if identity['groups'] & set(levels.get(level, ())):
                if level == 'admin':
                    request.environ['kodiak.owner'] = True
                    return True
                if level == 'read-write':
                    if container is not None or request.method in ('GET', 'HEAD'):
                        return True
                elif request.method in ('GET', 'HEAD'):
                    return True
        return None

    def listed(self, request, identity, groups, account):
        """By any of their groups."""
        return bool(identity.get('groups', set()) & set(groups))


class AccountAcl(Filter):
    """``X-Account-Access-Control`` in and out, as the account's system metadata."""

    KEEP = 'X-Account-Sysmeta-Core-Access-Control'

    def handle(self, request):
        """Check and translate; only for who administers the account."""
        split = request.split() if request.path.startswith('/v1') else None
        if split is None or split[2] is not None:
            return self.next(request)
        given = request.headers.pop('X-Account-Access-Control')
        if given is not None and request.method in ('POST', 'PUT'):
            request.headers[self.KEEP] = self._clean(given) if given.strip() not in ('', '{}') else ''
        answer = self.next(request)
        kept = answer.headers.get(self.KEEP)
        if kept and request.environ.get('kodiak.owner'):
            answer.headers['X-Account-Access-Control'] = kept
        return answer

    @staticmethod
    def _clean(text):
        try:
            levels = orjson.loads(text.encode('latin-1'))
        except (ValueError, UnicodeError):
            raise Fault(400, 'X-Account-Access-Control is not JSON') from None
        if not isinstance(levels, dict):
            raise Fault(400, 'X-Account-Access-Control is not an object')
        for level, users in levels.items():
            if level not in Local.LEVELS:
                raise Fault(400, f'Key {level!r} not recognized')
            if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
                raise Fault(400, f'Value for key {level!r} must be a list of strings')
        return orjson.dumps(levels, option=orjson.OPT_SORT_KEYS).decode('latin-1')
