"""Whose an access key is: a local user's, or identity's (EC2 credentials)."""
import base64
import hashlib
import hmac
import threading
import time

import orjson

from kodiak.common import authtoken

from .errors import S3Error
from .signature import EMPTY, day_key


class LocalKeys:
    """Access keys ``<account>:<user>`` of the local users filter."""

    def __init__(self, local):
        self.local = local

    def login(self, request, signature):
        """Check the signature, let the request be the user's; the user's account, or None where the key is not known."""
        known = self.local.users.get(signature.access)
        if known is None:
            return None
        signature.check(known[0])
        self.local.become(request, signature.access)
        request.environ['kodiak.authorize'] = self.local.authorize
        return self.local.account_of(signature.access)


class _Ours:
    """A signature made here."""

    def __init__(self, access, secret):
        self.access = access
        stamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
        self.string_to_sign = '\n'.join(('AWS4-HMAC-SHA256', stamp, f'{stamp[:8]}/us-east-1/s3/aws4_request', EMPTY))
        self.signature = hmac.new(day_key(secret, stamp[:8], 'us-east-1', 's3'), self.string_to_sign.encode(), 'sha256').hexdigest()


class IdentityKeys:
    """EC2 credentials: identity checks a key's first signature and tells its secret, which is kept for ``age`` seconds.

    :param adapter: a keystoneauth adapter to identity's ``/v3``, with the service's own credentials.
    :param authorizer: the filter that says what roles may.
    """

    def __init__(self, adapter, authorizer, age=60):
        self.adapter, self.authorizer, self.age = adapter, authorizer, age
        self._known = {}
        self._lock = threading.Lock()

    def login(self, request, signature):
        """As :meth:`LocalKeys.login`."""
        known = self._known.get(signature.access)
        if known is None or known[0] < time.monotonic():
            known = self._of_form(signature) if getattr(signature, 'form', False) else self._ask(signature)
            if known is None:
                return None
        signature.check(known[2])
        request.environ.update(known[1])
        self.authorizer.identify(request)
        request.environ['kodiak.authorize'] = self.authorizer.authorize
        return self.authorizer.prefixes[0] + known[1]['HTTP_X_PROJECT_ID']

    def _of_form(self, signature):
        # Identity knows the signature of a request, not that of a form: the key's secret signs one of ours for it to check.
        from keystoneauth1 import exceptions
        name = hashlib.sha256(signature.access.encode()).hexdigest()
        try:
            secret = orjson.loads(self.adapter.get(f'/credentials/{name}').json()['credential']['blob'])['secret']
        except exceptions.NotFound:
            return None
        except exceptions.ClientException as error:
            raise S3Error('ServiceUnavailable') from error
        return self._ask(_Ours(signature.access, secret))

    def _ask(self, signature):
        from keystoneauth1 import exceptions
        signed = base64.urlsafe_b64encode(signature.string_to_sign.encode('latin-1')).decode()
        try:
            token = self.adapter.post('/s3tokens', json={'credentials': {
                'access': signature.access, 'token': signed, 'signature': signature.signature}}).json()['token']
            secret = self.adapter.get(f'/users/{token["user"]["id"]}/credentials/OS-EC2/{signature.access}').json()[
                'credential']['secret']
        except (exceptions.Unauthorized, exceptions.NotFound):
            return None
        except exceptions.ClientException as error:
            raise S3Error('ServiceUnavailable') from error
        known = (time.monotonic() + self.age, authtoken.headers_of_body(token), secret)
        with self._lock:
            if len(self._known) > 1000:
                self._known = {}
            self._known[signature.access] = known
        return known
