"""OpenID Connect as a relying party: access tokens that a client brings, and the authorization code flow for browsers.

What is needed of each provider stands in the configuration, in a group ``[idp_<id of the identity provider>]``.
"""
import base64
import hashlib
import secrets
import threading
import time
import urllib.parse

import jwt
import requests
from oslo_config import cfg

from kodiak.common import errors

#: Read again on SIGHUP: a provider that is entered needs no restart.
OPTS = [
    cfg.StrOpt('issuer', mutable=True, help='The issuer, below which /.well-known/openid-configuration is found.'),
    cfg.StrOpt('client_id', mutable=True, help='Our client id at the provider.'),
    cfg.StrOpt('client_secret', secret=True, mutable=True, help='Our client secret.'),
    cfg.ListOpt('scopes', default=['openid', 'email', 'profile'], mutable=True, help='Scopes that are asked for in the browser.'),
    cfg.ListOpt('audiences', default=[], mutable=True, help='Audiences of access tokens that are taken besides our client id.'),
    cfg.StrOpt('ca_file', mutable=True, help='Certificates that the provider is checked against; those of the system if unset.'),
]
TIMEOUT = 10
KEEP = 3600
ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'ES256', 'ES384', 'EdDSA']


class Provider:
    """One provider, with what it publishes of itself."""

    def __init__(self, options):
        self.options = options
        self.issuer = options.issuer.rstrip('/')
        self._verify = options.ca_file or True
        self._lock = threading.Lock()
        self._metadata, self._keys, self._read = None, {}, 0

    def _get(self, url, **more):
        try:
            answer = requests.request(more.pop('method', 'GET'), url, timeout=TIMEOUT, verify=self._verify, allow_redirects=False,
                                      **more)
        except requests.RequestException as error:
            raise errors.BadGateway(f'The identity provider {self.issuer} cannot be reached.') from error
        return answer

    def metadata(self):
        """The provider's own description; read again every hour."""
        with self._lock:
            if self._metadata is None or time.monotonic() - self._read > KEEP:
                self._load()
            return self._metadata

    def _load(self):
        answer = self._get(self.issuer + '/.well-known/openid-configuration')
        try:
            found = answer.json()
            # A provider that calls itself otherwise could be another one that we were led to.
            if answer.status_code != 200 or found['issuer'].rstrip('/') != self.issuer:
                raise ValueError
            keys = self._get(found['jwks_uri']).json()['keys']
        except (ValueError, KeyError, TypeError):
            raise errors.BadGateway(f'The identity provider {self.issuer} does not describe itself as it should.') from None
        self._metadata, self._read = found, time.monotonic()
        self._keys = {}
        for key in keys:
            try:
                self._keys[key.get('kid')] = jwt.PyJWK(key)
            except jwt.PyJWTError:
                continue

    def claims(self, text, audiences, **required):
        """The claims of a JWT that the provider signed for one of ``audiences``; None if it isn't one."""
        self.metadata()
        try:
            key_id = jwt.get_unverified_header(text).get('kid')
        except jwt.PyJWTError:
            return None
        key = self._key(key_id)
        if key is None:
            return None
        try:
            found = jwt.decode(text, key, algorithms=ALGORITHMS, audience=audiences, issuer=self._metadata['issuer'], leeway=10,
                               options={'require': ['exp', 'iss', 'sub']})
        except jwt.PyJWTError:
            return None
        return found if all(found.get(name) == value for name, value in required.items()) else None

    def _key(self, key_id):
        if key_id is None:
            # A provider with one key need not say which it is.
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        key = self._keys.get(key_id)
        if key is None and time.monotonic() - self._read > 60:
            # The provider may have a new key; asked at most once a minute.
            with self._lock:
                self._load()
            key = self._keys.get(key_id)
        return key

    def of_bearer(self, text):
        """The claims that an access token stands for; 401 if it isn't good."""
        metadata, options = self.metadata(), self.options
        if metadata.get('introspection_endpoint') and options.client_secret:
            answer = self._get(metadata['introspection_endpoint'], method='POST', data={'token': text},
                               auth=(options.client_id, options.client_secret))
            try:
                found = answer.json() if answer.status_code == 200 else {}
            except ValueError:
                found = {}
            good = found.get('active') is True and found.get('iss', metadata['issuer']) == metadata['issuer']
            found = found if good and self._for_us(found) else None
        else:
            found = self.claims(text, [options.client_id, *options.audiences])
        if found is None:
            raise errors.Unauthorized()
        return {**found, **self._userinfo(text, found.get('sub')), 'iss': metadata['issuer']}

    def _for_us(self, found):
        audience = found.get('aud') or []
        named = {*([audience] if isinstance(audience, str) else audience), found.get('client_id'), found.get('azp')}
        return bool(named & {self.options.client_id, *self.options.audiences})

    def _userinfo(self, text, subject):
        url = self.metadata().get('userinfo_endpoint')
        if not url:
            return {}
        answer = self._get(url, headers={'Authorization': f'Bearer {text}'})
        if answer.status_code != 200 or 'json' not in answer.headers.get('Content-Type', ''):
            return {}
        found = answer.json()
        return found if isinstance(found, dict) and found.get('sub') == subject else {}

    def begin(self, redirect_uri):
        """``(URL at the provider, what must be remembered until the browser comes back)``."""
        kept = {'state': secrets.token_urlsafe(24), 'nonce': secrets.token_urlsafe(24), 'verifier': secrets.token_urlsafe(48)}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(kept['verifier'].encode()).digest()).rstrip(b'=').decode()
        query = urllib.parse.urlencode({
            'response_type': 'code', 'client_id': self.options.client_id, 'redirect_uri': redirect_uri,
            'scope': ' '.join(self.options.scopes), 'state': kept['state'], 'nonce': kept['nonce'],
            'code_challenge': challenge, 'code_challenge_method': 'S256'})
        url = self.metadata()['authorization_endpoint']
        return url + ('&' if '?' in url else '?') + query, kept

    def finish(self, code, kept, redirect_uri):
        """The claims of the person who came back with ``code``; 401 if anything is wrong."""
        data = {'grant_type': 'authorization_code', 'code': code, 'redirect_uri': redirect_uri, 'code_verifier': kept['verifier'],
                'client_id': self.options.client_id}
        auth = (self.options.client_id, self.options.client_secret) if self.options.client_secret else None
        answer = self._get(self.metadata()['token_endpoint'], method='POST', data=data, auth=auth)
        try:
            tokens = answer.json() if answer.status_code == 200 else {}
        except ValueError:
            tokens = {}
        found = self.claims(tokens.get('id_token') or '', [self.options.client_id], nonce=kept['nonce'])
        if found is None:
            raise errors.Unauthorized('The identity provider has not confirmed who you are.')
        more = self._userinfo(tokens['access_token'], found['sub']) if tokens.get('access_token') else {}
        return {**found, **more, 'iss': found['iss']}


def assertion(claims):
    """Claims as mappings refer to them: ``OIDC-<claim>``, ``HTTP_OIDC_<CLAIM>`` and ``OIDC_CLAIM_<claim>``; lists with ``;``."""
    found = {'REMOTE_USER': f"{claims['sub']}@{claims['iss']}"}
    for name, value in claims.items():
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, list):
            value = ';'.join(str(each) for each in value if not isinstance(each, dict | list))
        elif isinstance(value, dict) or value is None:
            continue
        text = str(value)
        found[f'OIDC-{name}'] = found[f'OIDC_CLAIM_{name}'] = text
        found['HTTP_OIDC_' + name.upper().replace('-', '_')] = text
    return found


class Providers:
    """The configured providers of a process."""

    def __init__(self, conf):
        self._conf = conf
        self._found = {}

    def of(self, idp_id):
        """The :class:`Provider` of an identity provider; 501 if it isn't configured."""
        found = self._found.get(idp_id)
        if found is None:
            group = f'idp_{idp_id}'
            self._conf.register_opts(OPTS, group=group)
            options = self._conf[group]
            if not options.issuer or not options.client_id:
                raise errors.NotImplementedHere(f'The identity provider {idp_id} is not configured ([{group}] issuer, client_id).')
            found = self._found[idp_id] = Provider(options)
        return found
