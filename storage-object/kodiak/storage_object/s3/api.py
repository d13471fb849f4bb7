"""The S3 API over the proxy's own: buckets are containers, multipart uploads static large objects.

A request is answered by requests of the Swift API through the filters further in. Whether it may is asked of bucket policies and
access lists first (:mod:`.access`); where these say nothing, the Swift API's own rules hold.
"""
import re
import time

import orjson

from ..middleware.customer_keys import CustomerKeys
from ..middleware.encryption import Encryption
from ..proxy.http import Fault, Filter, Response
from . import cors
from .access import Access
from .buckets import Buckets
from .call import Call
from .configs import ACTIONS, Configs
from .errors import S3Error
from .logs import AGE, Logs
from .multipart import Multipart
from .objects import Objects
from .post import Post, is_form
from .registry import Registry
from .signature import Signature
from .xml import document

BUCKET = re.compile(r'^(?!\d+\.\d+\.\d+\.\d+$)(?!.*(?:\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')
# First parts of paths that are no buckets'.
OTHERS = {'v1', 'v1.0', 'v2', 'v3', 'auth', 'info', 'healthcheck', 'metrics', 'recon', 'endpoints', 'crossdomain.xml', 'sso'}
MEANINGS = {400: 'InvalidArgument', 401: 'AccessDenied', 403: 'AccessDenied', 405: 'MethodNotAllowed',
            409: 'ConditionalRequestConflict', 411: 'MissingContentLength', 412: 'PreconditionFailed', 413: 'EntityTooLarge',
            416: 'InvalidRange', 422: 'BadDigest', 498: 'SlowDown', 499: 'IncompleteBody', 501: 'NotImplemented',
            503: 'ServiceUnavailable', 507: 'ServiceUnavailable'}
# Of buckets, that there are none of; whoever sets one is told so.
UNBUILT = {'accelerate', 'analytics', 'intelligent-tiering', 'inventory', 'metrics', 'notification', 'requestPayment',
           'torrent', 'restore', 'select'}


class S3(Filter):
    """Answers requests that are signed as S3's are, and those of nobody for what could be a bucket; all others pass.

    :param keys: a list of objects with ``login(request, signature)``, see :mod:`.keys`.
    """

    def __init__(self, application, conf=None, keys=()):
        super().__init__(application, conf)
        self.keys = list(keys)
        self.region = self.conf.get('location', 'us-east-1')
        self.domains = ['.' + word.strip().strip('.') for word in self.conf.get('storage_domain', '').split(',') if word.strip()]
        self.registry, self.configs, self.access = Registry(self), Configs(self), Access(self)
        self.logs = Logs(self, int(self.conf.get('logs_age', AGE)))
        # Whether what is put is encrypted further in.
        self.encrypted = bool(self._inside(Encryption, 'secrets'))
        # Whether there is who encrypts with keys of clients.
        self.customer_keys = self._inside(CustomerKeys, 'application') is not None
        self.multipart, self.buckets, self.objects, self.post = Multipart(self), Buckets(self), Objects(self), Post(self)

    def _inside(self, kind, name):
        inner = self.application
        while isinstance(inner, Filter):
            if isinstance(inner, kind):
                return getattr(inner, name)
            inner = inner.application
        return None

    def handle(self, request):
        """Answer, or pass on."""
        bucket, key = self._place(request)
        signed = self._signed(request)
        if not signed and not self._for_nobody(request, bucket):
            return self.next(request)
        trans = request.environ.get('kodiak.trans_id', '-')
        head, begun = request.method == 'HEAD', time.monotonic()
        call = code = None
        try:
            call = self._call(request, bucket, key, signed)
            answer = self._answer(call)
        except S3Error as error:
            answer, code = error.response(trans), error.code
        except Fault as fault:
            error = self.translated(fault.response, request.path)
            answer, code = error.response(trans), error.code
        if head and answer.status >= 400:
            answer.set_body(b'')
        if call is not None and request.headers.get('Origin') and request.method != 'OPTIONS':
            cors.mark(request, self.configs.get(call, 'cors') if self.info(call).ok else None, answer)
        if call is not None and call.bucket:
            self.logs.note(call, answer, code, time.monotonic() - begun)
        answer.headers['X-Amz-Request-Id'] = answer.headers['X-Amz-Id-2'] = trans
        return answer

    # what kind of request it is

    def _place(self, request):
        host = (request.headers.get('Host') or '').partition(':')[0].lower()
        path = request.path.lstrip('/')
        for domain in self.domains:
            if host.endswith(domain):
                return host[:-len(domain)], path
        bucket, _, key = path.partition('/')
        return bucket, key

    @staticmethod
    def _signed(request):
        if request.method == 'OPTIONS':
            return False        # of a browser that asks whether it may send what is signed
        header = request.headers.get('Authorization') or ''
        if header.startswith(('AWS4-HMAC-SHA256', 'AWS ')):
            return True
        return bool(request.environ.get('QUERY_STRING')) and bool({'X-Amz-Algorithm', 'AWSAccessKeyId'} & set(request.query))

    @staticmethod
    def _for_nobody(request, bucket):
        environ = request.environ
        return bucket not in OTHERS and bool(BUCKET.match(bucket)) and not environ.get('kodiak.sub') and (
            'HTTP_X_AUTH_TOKEN' not in environ) and environ.get('kodiak.proxy') is not None

    def _call(self, request, bucket, key, signed):
        signature = account = None
        if signed:
            signature = Signature(request, bucket if request.path.lstrip('/') == key else None, self.region)
            account = self.login(request, signature)
        for name in ('HTTP_AUTHORIZATION', 'HTTP_X_AUTH_TOKEN'):
            request.environ.pop(name, None)
        call = Call(request, signature, account, bucket, key)
        if bucket and not BUCKET.match(bucket):
            raise S3Error('InvalidBucketName', BucketName=bucket)
        self.locate(call)
        return call

    def login(self, request, signature):
        """The account of whoever has signed."""
        account = next((found for keys in self.keys if (found := keys.login(request, signature))), None)
        if account is None:
            raise S3Error('InvalidAccessKeyId', AWSAccessKeyId=signature.access)
        return account

    def check_owner(self, call, wanted):
        """AccessDenied where somebody else has a bucket than the request says."""
        if wanted is not None and self.info(call).ok and wanted not in (
                call.place, call.place.partition('_')[2], self.buckets.known_acl(call).owner):
            raise S3Error('AccessDenied')

    def locate(self, call):
        """Find the account that a call's bucket is in."""
        if not call.bucket:
            return
        if call.account is not None and call.request.environ['kodiak.proxy'].infos.get(call.request, call.account, call.bucket).ok:
            call.place = call.account
            return
        call.place = self.registry.account(call.request, call.bucket) or call.account
        if call.place is None:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)

    def _answer(self, call):
        request, method = call.request, call.request.method
        if not call.bucket:
            if method != 'GET':
                raise S3Error('MethodNotAllowed', Method=method, ResourceType='SERVICE')
            if call.signature is None:
                raise S3Error('AccessDenied')
            return self.buckets.all(call)
        if method == 'OPTIONS':
            return cors.preflight(request, self.configs.get(call, 'cors'))
        self.check_owner(call, request.headers.get('X-Amz-Expected-Bucket-Owner'))
        if len(call.key.encode('utf-8', 'replace')) > 1024:
            raise S3Error('KeyTooLongError')
        if method == 'POST' and not call.key and is_form(request):
            return self.post.handle(call)
        if call.key:
            return self.objects.handle(call)
        for name in ACTIONS:
            if name in call.query:
                return self._configure(call, name)
        if UNBUILT & set(call.query):
            return self._unbuilt(call)
        return self.buckets.handle(call)

    def _configure(self, call, name):
        path = '/' + call.bucket
        verb = {'GET': 'Get', 'PUT': 'Put', 'DELETE': 'Delete' if name == 'policy' else 'Put'}.get(call.request.method)
        if verb is None:
            raise S3Error('MethodNotAllowed')
        self.good(self.ask(call, 'HEAD', path, authorize=False), path)
        self.access.check(call, verb + ACTIONS[name])
        if not call.owned and not call.free:
            raise S3Error('AccessDenied')
        return self.configs.handle(call, name)

    def _unbuilt(self, call):
        path = '/' + call.bucket
        self.access.check(call, 'ListBucket')
        self.good(self.ask(call, 'HEAD', path), path)
        if call.request.method == 'GET':
            for name, root, body in (('notification', 'NotificationConfiguration', ''),
                                     ('requestPayment', 'RequestPaymentConfiguration', '<Payer>BucketOwner</Payer>'),
                                     ('accelerate', 'AccelerateConfiguration', '')):
                if name in call.query:
                    return document(root, body)
        raise S3Error('NotImplemented')

    # what all use

    @staticmethod
    def info(call):
        """What the proxy knows of a call's bucket."""
        return call.request.environ['kodiak.proxy'].infos.get(call.request, call.place, call.bucket)

    def ask(self, call, method, path, headers=None, authorize=True, place=None, environ=None, **more):
        """A request of the Swift API; ``path`` below the bucket's account, or ``place``. ``environ``: for filters further in."""
        request = call.request.sub(method, f'/v1/{place or call.place}{path}', headers, source='S3',
                                   authorize=authorize and not call.free, **more)
        request.environ.update(environ or {})
        return self.next(request)

    def head(self, call, key, version=None):
        """An object's HEAD for our own use, once a call."""
        known = call.heads.get((key, version))
        if known is None:
            query = {'version-id': version} if version else None
            known = call.heads[key, version] = self.ask(call, 'HEAD', f'/{call.bucket}/{key}', query=query, authorize=False).drain()
        return known

    def good(self, answer, path):
        """The answer if it is one, else the S3 error that it stands for."""
        if answer.ok:
            return answer
        raise self.translated(answer, path)

    @staticmethod
    def translated(answer, path):
        """The S3 error that an answer of the Swift API stands for."""
        bucket, _, key = path.lstrip('/').partition('/')
        status = answer.status
        if status == 404:
            answer.close()
            return S3Error('NoSuchKey', Key=key) if key else S3Error('NoSuchBucket', BucketName=bucket)
        message = None
        if status == 400:
            text = answer.read(4096).decode('utf-8', 'replace')
            message = text if text and not text.startswith('<') else None
        else:
            answer.close()
        return S3Error(MEANINGS.get(status, 'InvalidRequest' if status < 500 else 'InternalError'), message)

    def versions(self, call, key, limit=1):
        """The newest versions of a key, as the Swift API lists them."""
        return self._versions(call, key, {}, limit)

    def _versions(self, call, key, more, limit):
        answer = self.ask(call, 'GET', '/' + call.bucket, authorize=False, query={
            'versions': '', 'format': 'json', 'prefix': key, 'limit': str(limit), **more})
        if not answer.ok:
            answer.close()
            return []
        return [row for row in orjson.loads(answer.read()) if row.get('name') == key]

    def null_version(self, call, key):
        """What the Swift API calls the version ``null`` of a key: ``null``, or a version id; None where there is none."""
        more = {}
        while rows := self._versions(call, key, more, 1000):
            for row in rows:
                if row['version_id'] == 'null' or row.get('null_version'):
                    return row['version_id']
            more = {'marker': key, 'version_marker': rows[-1]['version_id']}
        return None

    def versioned(self, call):
        """Whether the bucket has, or had, versions; None, ``Enabled`` or ``Suspended``."""
        state = self.info(call)['sysmeta'].get('versions-enabled')
        return None if state is None else 'Enabled' if state == 'True' else 'Suspended'


def empty(status=200, headers=None):
    """An answer without a body."""
    return Response(status, b'', headers, content_type='text/html; charset=UTF-8')
