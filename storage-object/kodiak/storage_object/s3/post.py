"""Uploads of a browser's form (POST of ``multipart/form-data`` to a bucket), under a policy that its maker has signed."""
import base64
import binascii
import calendar
import hmac
import time

import orjson

from kodiak.common.numbers import natural

from ..middleware.formpost import Invalid, Parts, params_of
from ..proxy.http import Response, quote, to_wsgi
from . import checksums
from .acl import CANNED
from .errors import S3Error
from .signature import day_key
from .xml import document, moment_of, tag

FIELD = 20480
# Fields that no condition has to name.
FREE = {'policy', 'file', 'awsaccesskeyid', 'signature', 'x-amz-signature', 'x-amz-security-token'}
HEADERS = {'content-type': 'Content-Type', 'content-encoding': 'Content-Encoding', 'content-disposition': 'Content-Disposition',
           'cache-control': 'Cache-Control', 'expires': 'Expires', 'content-language': 'Content-Language'}


def is_form(request):
    """Whether a request's body is a form."""
    kind, _, rest = request.headers.get('Content-Type', '').partition(';')
    return kind.strip().lower() == 'multipart/form-data' and 'boundary=' in rest


class FormSignature:
    """The signature of a form's policy; what :mod:`.keys` ask of a request's."""

    presigned = False

    def __init__(self, fields):
        self.string_to_sign = fields.get('policy', '')
        if 'x-amz-signature' in fields or 'x-amz-credential' in fields:
            self.version, self.signature = 4, fields.get('x-amz-signature', '')
            try:
                self.access, self.date, self.region, self.service, end = fields.get('x-amz-credential', '').rsplit('/', 4)
                if end != 'aws4_request' or fields.get('x-amz-algorithm') != 'AWS4-HMAC-SHA256':
                    raise ValueError
            except ValueError:
                raise S3Error('InvalidArgument', 'The Credential is mal-formed', ArgumentName='x-amz-credential') from None
        else:
            self.version, self.access, self.signature = 2, fields.get('awsaccesskeyid', ''), fields.get('signature', '')
        self.form = True

    def check(self, secret):
        """Raise unless ``secret`` has made it."""
        text = self.string_to_sign.encode()
        if self.version == 4:
            made = hmac.new(day_key(secret, self.date, self.region, self.service), text, 'sha256').hexdigest()
        else:
            made = base64.b64encode(hmac.new(secret.encode(), text, 'sha1').digest()).decode()
        if not hmac.compare_digest(made.encode(), self.signature.encode('utf-8', 'replace')):
            raise S3Error('SignatureDoesNotMatch')


class Conditions:
    """A policy's conditions. Raises for a policy that is none, or is over."""

    def __init__(self, text):
        try:
            policy = orjson.loads(base64.b64decode(text, validate=True))
            expires, conditions = moment_of(policy['expiration']), policy['conditions']
            if expires is None or not isinstance(conditions, list):
                raise ValueError
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise S3Error('InvalidPolicyDocument', 'Invalid Policy: Invalid JSON.') from None
        if expires < time.time():
            raise S3Error('AccessDenied', 'Invalid according to Policy: Policy expired.')
        self.tests, self.least, self.most = [], 0, None
        for condition in conditions:
            self._read(condition)

    def _read(self, condition):
        if isinstance(condition, dict) and len(condition) == 1:
            (name, value), = condition.items()
            self.tests.append(('eq', name.lower(), str(value)))
            return
        if isinstance(condition, list) and len(condition) == 3:
            kind, first, second = str(condition[0]).lower(), *condition[1:]
            span = natural(str(first)), natural(str(second))
            if kind == 'content-length-range' and None not in span:
                self.least, self.most = span
                return
            if kind in ('eq', 'starts-with') and isinstance(first, str) and first.startswith('$') and isinstance(second, str):
                self.tests.append((kind, first[1:].lower(), second))
                return
        raise S3Error('InvalidPolicyDocument', 'Invalid Policy: a condition is none.')

    def check(self, fields):
        """Raise unless a form's fields are what they say, each of them."""
        for kind, name, wanted in self.tests:
            value = fields.get(name, '')
            good = value == wanted if kind == 'eq' else all(part.strip().startswith(wanted) for part in (
                value.split(',') if name == 'content-type' else [value]))
            if not good:
                raise S3Error('AccessDenied', 'Invalid according to Policy: Policy Condition failed: '
                                              f'["{kind}", "${name}", "{wanted}"]')
        named = {name for _, name, _ in self.tests}
        for name in fields:
            if name not in named and name not in FREE and not name.startswith(('x-ignore-', 'x-amz-checksum-')):
                raise S3Error('AccessDenied', f'Invalid according to Policy: Extra input fields: {name}')


class _File:
    """The form's file as a stream; raises past ``most`` bytes, and at its end with less than ``least``."""

    def __init__(self, parts, least, most):
        self.parts, self.least, self.most, self.size = parts, least, most, 0

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = self.parts.read(size)
        self.size += len(data)
        if self.most is not None and self.size > self.most:
            raise S3Error('EntityTooLarge')
        if not data and self.size < self.least:
            raise S3Error('EntityTooSmall')
        return data


class Post:
    """POST of a form.

    :param api: the S3 filter.
    """

    def __init__(self, api):
        self.api = api

    def handle(self, call):
        """Take the fields that come before the file, check them, put the file."""
        request = call.request
        boundary = request.headers['Content-Type'].split('boundary=', 1)[1].split(';')[0].strip().strip('"')
        parts, fields = Parts(request, boundary), {}
        try:
            for headers in parts:
                disposition = params_of(headers.get('content-disposition', ''))
                name = disposition.get('name', '').lower()
                if name == 'file':
                    return self._take(call, fields, disposition.get('filename', ''), headers, parts)
                fields[name] = parts.rest(FIELD).decode('utf-8', 'replace')
        except Invalid as problem:
            raise S3Error('MalformedPOSTRequest', str(problem)) from None
        raise S3Error('InvalidArgument', 'POST requires exactly one file upload per request.', ArgumentName='file', ArgumentValue=0)

    def _take(self, call, fields, filename, headers, parts):
        if 'key' not in fields:
            raise S3Error('InvalidArgument', "Bucket POST must contain a field named 'key'.  If it is specified, please check the "
                                             'order of the fields.', ArgumentName='key')
        fields['key'] = fields['key'].replace('${filename}', filename.replace('\\', '/').rpartition('/')[2])
        conditions = self._who(call, fields)
        if not call.key:
            raise S3Error('UserKeyMustBeSpecified')
        if len(call.key.encode()) > 1024:
            raise S3Error('KeyTooLongError')
        # From here on it is a PUT whose headers were the form's fields.
        environ = call.request.environ
        for name in [n for n in environ if n.startswith('HTTP_X_AMZ_') or n in ('CONTENT_TYPE', 'HTTP_CONTENT_MD5')]:
            del environ[name]
        kind = fields.pop('content-type', None) or headers.get('content-type')
        for name, value in ({'content-type': kind} if kind else {}).items() | fields.items():
            if name in HEADERS:
                call.request.headers[HEADERS[name]] = to_wsgi(value)
            elif name.startswith(('x-amz-meta-', 'x-amz-checksum-', 'x-amz-object-lock-', 'x-amz-server-side-', 'x-amz-storage-')):
                call.request.headers[name] = to_wsgi(value)
        if fields.get('acl'):
            if fields['acl'] not in CANNED:
                raise S3Error('InvalidArgument', ArgumentName='acl', ArgumentValue=fields['acl'])
            call.request.headers['X-Amz-Acl'] = fields['acl']
        self.api.access.check(call, 'PutObject', call.key)
        most = conditions.most if conditions else None
        stream = checksums.Told(_File(parts, conditions.least if conditions else 0, most), checksums.told_by(call.request.headers))
        put = self.api.objects.put(call, stream=stream, more=self._tags(fields))
        return self._answer(call, fields, put)

    @staticmethod
    def _tags(fields):
        if not fields.get('tagging'):
            return {}
        from . import tagging
        return {tagging.HEADER: tagging.store(tagging.of_xml(fields['tagging'].encode()))}

    def _who(self, call, fields):
        call.key = fields['key']
        fields = {**fields, 'bucket': call.bucket}
        if 'policy' not in fields:
            if {'awsaccesskeyid', 'x-amz-credential'} & set(fields):
                raise S3Error('InvalidArgument', "Bucket POST must contain a field named 'policy'.", ArgumentName='policy')
            return None
        for name in ('awsaccesskeyid', 'signature') if 'x-amz-credential' not in fields else ('x-amz-signature',):
            if name not in fields:
                raise S3Error('InvalidArgument', f"Bucket POST must contain a field named '{name}'.", ArgumentName=name)
        signature = FormSignature(fields)
        account = self.api.login(call.request, signature)
        place = call.place
        call.__init__(call.request, signature, account, call.bucket, call.key)
        call.place = place
        self.api.locate(call)
        conditions = Conditions(fields['policy'])
        stamp = fields.get('x-amz-date')
        if signature.version == 4:
            try:
                calendar.timegm(time.strptime(stamp or '', '%Y%m%dT%H%M%SZ'))
            except ValueError:
                raise S3Error('InvalidArgument', 'The Date is mal-formed', ArgumentName='x-amz-date') from None
        fields.pop('bucket') if not any(name == 'bucket' for _, name, _ in conditions.tests) else None
        conditions.check(fields)
        return conditions

    @staticmethod
    def _answer(call, fields, put):
        etag = put.headers['Etag']
        where = fields.get('success_action_redirect') or fields.get('redirect')
        if where and '\r' not in where and '\n' not in where and where.startswith(('http://', 'https://')):
            glue = '&' if '?' in where else '?'
            place = f'{where}{glue}bucket={quote(call.bucket, "")}&key={quote(call.key, "")}&etag={quote(etag, "")}'
            return Response(303, b'', {'Location': place, 'Etag': etag}, content_type='text/html; charset=UTF-8')
        get = call.request.environ.get
        at = f'{get("wsgi.url_scheme")}://{get("HTTP_HOST", "")}/{call.bucket}/{quote(call.key)}'
        status = {'200': 200, '201': 201}.get(fields.get('success_action_status', ''), 204)
        if status == 201:
            facts = (('Location', at), ('Bucket', call.bucket), ('Key', call.key), ('ETag', etag))
            answer = document('PostResponse', ''.join(tag(name, value) for name, value in facts), 201, named=False)
        else:
            answer = Response(status)
        answer.headers.update({'Etag': etag, 'Location': at})
        if 'X-Amz-Version-Id' in put.headers:
            answer.headers['X-Amz-Version-Id'] = put.headers['X-Amz-Version-Id']
        return answer
