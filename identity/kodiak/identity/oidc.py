"""OpenID Connect as a relying party: access tokens that a client brings, and the authorization code flow for browsers.

What is needed of each provider stands in the configuration, in a group ``[idp_<id of the identity provider>]``.
"""
import base64
import contextlib
import hashlib
import logging
import secrets
import threading
import time
import urllib.parse

import jwt
import requests
from oslo_config import cfg

from kodiak.common import errors

LOG = logging.getLogger(__name__)

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
AGAIN = 60
NEEDED = ('issuer', 'jwks_uri', 'authorization_endpoint', 'token_endpoint')
ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'ES256', 'ES384', 'EdDSA']


def _object(answer):
    """What a provider has answered, as a dictionary; empty where it is none."""
    try:
        found = answer.json() if answer.status_code == 200 else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


class Provider:
    """One provider, with what it publishes of itself."""

    def __init__(self, options):
        self.options = options
        self.issuer = options.issuer.rstrip('/')
        self._verify = options.ca_file or True
        self._lock = threading.Lock()
        self._metadata, self._keys = None, {}
        self._read = self._tried = float('-inf')

    def _get(self, url, **more):
        try:
            answer = requests.request(more.pop('method', 'GET'), url, timeout=TIMEOUT, verify=self._verify, allow_redirects=False,
                                      **more)
        except requests.RequestException as error:
            raise errors.BadGateway(f'The identity provider {self.issuer} cannot be reached.') from error
        return answer

    def metadata(self):
        """The provider's own description; read again every hour. If that fails, what there is holds for a day."""
        held, now = self._metadata, time.monotonic()
        if held is not None and (now - self._read <= KEEP or now - self._tried <= AGAIN):
            return held
        # While one reads it anew, the others go on with what there is.
        if not self._lock.acquire(blocking=held is None):
            return held
        try:
            if self._metadata is held:
                self._renew(held)
            return self._metadata
        finally:
            self._lock.release()

    def _renew(self, held):
        if held is None and time.monotonic() - self._tried < TIMEOUT:
            # It has just failed: not each request has to wait for that.
            raise errors.BadGateway(f'The identity provider {self.issuer} cannot be reached. Try again later.')
        self._tried = time.monotonic()
        try:
            self._load()
        except errors.BadGateway:
            if held is None or time.monotonic() - self._read > 24 * KEEP:
                raise
            LOG.warning('The identity provider %s could not be asked for its description; the one from before holds.', self.issuer)

    def _load(self):
        answer = self._get(self.issuer + '/.well-known/openid-configuration')
        found = _object(answer)
        # A provider that calls itself otherwise could be another one that we were led to.
        good = all(isinstance(found.get(name), str) for name in NEEDED) and found['issuer'].rstrip('/') == self.issuer
        keys = _object(self._get(found['jwks_uri'])).get('keys') if good else None
        if not isinstance(keys, list):
            raise errors.BadGateway(f'The identity provider {self.issuer} does not describe itself as it should.')
        known = {}
        for key in keys:
            with contextlib.suppress(jwt.PyJWTError, AttributeError, TypeError, ValueError):
                known[key.get('kid')] = jwt.PyJWK(key)
        self._metadata, self._keys, self._read = found, known, time.monotonic()

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
        if key is None and time.monotonic() - max(self._read, self._tried) > AGAIN:
            # The provider may have a new key; asked at most once a minute.
            with self._lock:
                self._renew(self._metadata)
            key = self._keys.get(key_id)
        return key

    def of_bearer(self, text):
        """The claims that an access token stands for; 401 if it isn't good."""
        metadata, options = self.metadata(), self.options
        if metadata.get('introspection_endpoint') and options.client_secret:
            answer = self._get(metadata['introspection_endpoint'], method='POST', data={'token': text},
                               auth=(options.client_id, options.client_secret))
            found = _object(answer)
            good = found.get('active') is True and found.get('iss', metadata['issuer']) == metadata['issuer']
            found = found if good and self._for_us(found) else None
        else:
            found = self.claims(text, [options.client_id, *options.audiences])
        if found is None:
            raise errors.Unauthorized()
        return {**found, **self._userinfo(text, found.get('sub')), 'iss': metadata['issuer']}

    def _for_us(self, found):
        audience = found.get('aud') or []
        named = [*([audience] if isinstance(audience, str) else audience if isinstance(audience, list) else ()),
                 found.get('client_id'), found.get('azp')]
        return any(name in named for name in (self.options.client_id, *self.options.audiences))

    def _userinfo(self, text, subject):
        url = self.metadata().get('userinfo_endpoint')
        if not url:
            return {}
        answer = self._get(url, headers={'Authorization': f'Bearer {text}'})
        found = _object(answer) if 'json' in answer.headers.get('Content-Type', '') else {}
        return found if subject and found.get('sub') == subject else {}

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
        tokens = _object(answer)
        found = self.claims(str(tokens.get('id_token') or ''), [self.options.client_id], nonce=kept['nonce'])
        if found is None:
            raise errors.Unauthorized('The identity provider has not confirmed who you are.')
        more = self._userinfo(tokens['access_token'], found['sub']) if tokens.get('access_token') else {}
        return {**found, **more, 'iss': found['iss']}


def assertion(claims):
    """Claims as mappings refer to them: ``OIDC-<claim>``, ``HTTP_OIDC_<CLAIM>`` and ``OIDC_CLAIM_<claim>``; lists with ``;``."""
    # What an application has in its own name is about nobody.
    found = {'REMOTE_USER': f"{claims['sub']}@{claims['iss']}"} if claims.get('sub') else {}
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
