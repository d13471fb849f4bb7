"""What a bucket is configured with: documents that S3's clients put, get and delete, each checked when it is put.

A document is an object of a container that clients don't see; which there are, and of when, stands in the bucket's system metadata,
so that a request of a bucket without any asks nobody.
"""
from kodiak.common.numbers import natural

from ..proxy.dbs import timestamp
from ..proxy.http import Response
from . import acl, cors, lifecycle, logs, sse, tagging
from .errors import S3Error
from .policy import Policy
from .xml import document, parse_xml, tag

HIDDEN = '\0s3'
INDEX = 'X-Container-Sysmeta-S3Api-Config'
LOCK = 'X-Container-Sysmeta-S3Api-Lock'
LIMIT = 65536
BLOCKS = ('BlockPublicAcls', 'IgnorePublicAcls', 'BlockPublicPolicy', 'RestrictPublicBuckets')
# name of the query: the error where there is none, and what DELETE of it answers
MISSING = {'cors': 'NoSuchCORSConfiguration', 'lifecycle': 'NoSuchLifecycleConfiguration', 'policy': 'NoSuchBucketPolicy',
           'tagging': 'NoSuchTagSet', 'publicAccessBlock': 'NoSuchPublicAccessBlockConfiguration',
           'ownershipControls': 'OwnershipControlsNotFoundError', 'object-lock': 'ObjectLockConfigurationNotFoundError',
           'website': 'NoSuchWebsiteConfiguration', 'replication': 'ReplicationConfigurationNotFoundError',
           'encryption': 'ServerSideEncryptionConfigurationNotFoundError'}
ACTIONS = {'cors': 'BucketCORS', 'lifecycle': 'LifecycleConfiguration', 'policy': 'BucketPolicy', 'tagging': 'BucketTagging',
           'publicAccessBlock': 'BucketPublicAccessBlock', 'ownershipControls': 'BucketOwnershipControls',
           'object-lock': 'BucketObjectLockConfiguration', 'website': 'BucketWebsite', 'encryption': 'EncryptionConfiguration',
           'replication': 'ReplicationConfiguration', 'logging': 'BucketLogging'}


def _block(data):
    root = parse_xml(data, 'PublicAccessBlockConfiguration')
    if any(e.tag not in BLOCKS or (e.text or '').lower() not in ('true', 'false') for e in root):
        raise S3Error('MalformedXML')
    return {e.tag: e.text.lower() == 'true' for e in root}


def _ownership(data):
    rules = [e.text for e in parse_xml(data, 'OwnershipControls').iter('ObjectOwnership')]
    if len(rules) != 1 or rules[0] not in acl.OWNERSHIPS:
        raise S3Error('MalformedXML')
    return rules[0]


def _lock(data):
    root = parse_xml(data, 'ObjectLockConfiguration')
    if root.findtext('ObjectLockEnabled') != 'Enabled':
        raise S3Error('MalformedXML')
    rule = root.find('Rule/DefaultRetention')
    if rule is None:
        return {}
    mode, days, years = rule.findtext('Mode'), rule.findtext('Days'), rule.findtext('Years')
    if mode not in ('GOVERNANCE', 'COMPLIANCE') or (days is None) == (years is None):
        raise S3Error('MalformedXML')
    count = (natural((days or years or '').strip()) or 0) * (1 if days else 365)
    if not 0 < count <= 36500:
        raise S3Error('InvalidRetentionPeriod')
    return {'mode': mode, 'days': count}


# How each is read; raises where a document is none.
READERS = {'cors': cors.parse, 'lifecycle': lifecycle.parse, 'publicAccessBlock': _block, 'ownershipControls': _ownership,
           'object-lock': _lock, 'tagging': lambda data: tagging.of_xml(data, 50), 'encryption': sse.of_bucket,
           'logging': logs.parse}


class Configs:
    """Puts, gets and deletes them.

    :param api: the S3 filter.
    """

    def __init__(self, api):
        self.api = api

    def index(self, call):
        """Name to stamp of the documents of a call's bucket."""
        text = self.api.info(call)['sysmeta'].get('s3api-config')
        return dict(pair.split('=', 1) for pair in text.split(',')) if text else {}

    def _inner(self, call, method, name, headers=None, body=b''):
        path = f'/v1/{call.place}/{HIDDEN}' + (f'/{call.bucket}/{name}' if name else '')
        request = call.request.sub(method, path, headers, body, authorize=False, source='S3')
        request.environ['kodiak.reserved'] = True
        return self.api.next(request)

    def raw(self, call, name):
        """A document's bytes, or None."""
        stamp = self.index(call).get(name)
        if stamp is None:
            return None
        cache = call.request.environ['kodiak.proxy'].cache
        key = f's3-config:{call.place}/{call.bucket}/{name}/{stamp}'
        data = cache.get(key)
        if data is None:
            count = cache.count(key)
            answer = self._inner(call, 'GET', name)
            if not answer.ok:
                answer.close()
                raise S3Error('ServiceUnavailable')
            data = answer.read()
            cache.set(key, data, count, 600)
        return data

    def get(self, call, name):
        """A document as its reader gives it, or None."""
        data = self.raw(call, name)
        if data is None:
            return None
        return Policy(data, call.bucket) if name == 'policy' else READERS[name](data)

    def _store(self, call, name, data, made=None):
        index = self.index(call)
        if data is None:
            index.pop(name, None)
        else:
            answer = self._inner(call, 'PUT', name, {'Content-Type': 'application/octet-stream'}, data)
            if answer.status == 404:
                self.api.good(self._inner(call, 'PUT', None), '/')
                answer = self._inner(call, 'PUT', name, {'Content-Type': 'application/octet-stream'}, data)
            self.api.good(answer, '/')
            index[name] = timestamp()
        text = ','.join(f'{key}={stamp}' for key, stamp in sorted(index.items()))
        path = '/' + call.bucket
        headers = {INDEX: text}
        if name == 'object-lock':
            # The guard of the Swift API's side reads it there.
            headers[LOCK] = f'{made["mode"]} {made["days"]}' if made else 'on'
        self.api.good(self.api.ask(call, 'POST', path, headers, authorize=False), path)
        if data is None:
            self._inner(call, 'DELETE', name).drain()

    def own(self, call, rule):
        """Give a bucket that has just been made its rule of ownership."""
        body = f'<Rule>{tag("ObjectOwnership", rule)}</Rule>'
        self._store(call, 'ownershipControls', document('OwnershipControls', body).body)

    def forget(self, call):
        """Take all away, with their bucket."""
        for name in self.index(call):
            self._inner(call, 'DELETE', name).drain()

    def handle(self, call, name):
        """PUT, GET or DELETE of one document."""
        method = call.request.method
        if method == 'GET':
            return self._show(call, name)
        if method == 'DELETE':
            if name in ('object-lock', 'logging'):
                raise S3Error('MethodNotAllowed')
            if name in self.index(call):
                self._store(call, name, None)
            return Response(204)
        if method != 'PUT':
            raise S3Error('MethodNotAllowed')
        data = call.body(LIMIT)
        if name == 'policy':
            made = Policy(data, call.bucket)
            blocks = self.get(call, 'publicAccessBlock') or {}
            if made.public and blocks.get('BlockPublicPolicy'):
                raise S3Error('AccessDenied')
            self._store(call, name, data)
            return Response(204)
        if name not in READERS:
            raise S3Error('NotImplemented')
        made = READERS[name](data)
        if name == 'object-lock' and 's3api-lock' not in self.api.info(call)['sysmeta'] and self.api.versioned(call) != 'Enabled':
            raise S3Error('InvalidBucketState', "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
        if name == 'ownershipControls' and made == acl.ENFORCED and self.api.buckets.known_acl(call).shared:
            raise S3Error('InvalidBucketAclWithObjectOwnership')
        if name == 'encryption' and not self.api.encrypted:
            raise S3Error('NotImplemented', 'Server side encryption is not enabled')
        if name == 'logging':
            if made is None:
                self._store(call, name, None)
                return Response(200)
            self.api.logs.check(call, made)
        if name == 'lifecycle':
            data = lifecycle.named(data)
        self._store(call, name, data, made)
        return Response(204 if name == 'tagging' else 200)

    def _show(self, call, name):
        if name == 'logging':
            return logs.render(self.get(call, name))
        data = self.raw(call, name)
        if data is None:
            if name == 'object-lock' and 's3api-lock' in self.api.info(call)['sysmeta']:
                return document('ObjectLockConfiguration', tag('ObjectLockEnabled', 'Enabled'))
            raise S3Error(MISSING[name], BucketName=call.bucket)
        if name == 'policy':
            return Response(200, data, content_type='application/json')
        return Response(200, data, content_type='application/xml')

    def policy_status(self, call):
        """GET ?policyStatus."""
        policy = self.get(call, 'policy')
        if policy is None:
            raise S3Error('NoSuchBucketPolicy', BucketName=call.bucket)
        return document('PolicyStatus', tag('IsPublic', str(policy.public).lower()))
