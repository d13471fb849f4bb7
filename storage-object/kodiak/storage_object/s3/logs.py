"""Logs of a bucket's requests (server access logs): a line each, put as objects into the bucket that its configuration names.

The lines wait in the process that has answered, for ``AGE`` seconds at most; what a process that is killed has not put yet is lost:
as Amazon's, these logs are no accounting. Who delivers is ``logging.s3.amazonaws.com``, whom the policy of the target must allow to
put objects there, or its list (``log-delivery-write``).
"""
import logging
import os
import re
import threading
import time

from kodiak.common import periodic
from kodiak.common.numbers import natural

from ..proxy.http import Fault, from_wsgi, quote
from . import acl
from .call import Call
from .errors import S3Error
from .policy import facts_of
from .xml import XSI, document, parse_xml, tag

LOG = logging.getLogger(__name__)
DELIVERER = frozenset(('Service:logging.s3.amazonaws.com',))
AGE, SIZE, MOST = 300, 1 << 20, 8 << 20
EVENT, DELIVERY = 'EventTime', 'DeliveryTime'
TARGET_PERMISSIONS = ('FULL_CONTROL', 'READ', 'WRITE')
# What a request asks for beside objects and buckets: what it is called after the method.
RESOURCES = {
    'acl': 'ACL', 'tagging': 'OBJECT_TAGGING', 'retention': 'OBJECT_LOCK_RETENTION', 'legal-hold': 'OBJECT_LOCK_LEGALHOLD',
    'attributes': 'OBJECT_ATTRIBUTES', 'uploads': 'UPLOADS', 'delete': 'MULTI_OBJECT_DELETE', 'versions': 'BUCKETVERSIONS',
    'versioning': 'VERSIONING', 'location': 'LOCATION', 'policy': 'BUCKETPOLICY', 'policyStatus': 'BUCKETPOLICYSTATUS',
    'cors': 'CORS', 'lifecycle': 'LIFECYCLE', 'logging': 'LOGGING_STATUS', 'object-lock': 'OBJECT_LOCK_CONFIGURATION',
    'publicAccessBlock': 'PUBLIC_ACCESS_BLOCK', 'ownershipControls': 'OWNERSHIP_CONTROLS', 'encryption': 'ENCRYPTION'}
# Of a presigned URL, what would let others use it.
SECRET = re.compile(r'((?:X-Amz-Signature|Signature|X-Amz-Security-Token)=)[^&]*', re.IGNORECASE)
UNSAFE = re.compile(r'[\x00-\x20"\\\x7f]')


def parse(data):
    """``{'target', 'prefix', 'dates', 'grants'}`` of a ``BucketLoggingStatus``; None for one that ends the logs.

    ``dates``: None, or by which time keys are laid in folders.
    """
    wanted = parse_xml(data, 'BucketLoggingStatus').find('LoggingEnabled')
    if wanted is None:
        return None
    target, prefix = wanted.findtext('TargetBucket'), wanted.findtext('TargetPrefix') or ''
    if not target or wanted.find('TargetPrefix') is None or len(prefix) > 800:
        raise S3Error('MalformedXML')
    folders, dates = wanted.find('TargetObjectKeyFormat/PartitionedPrefix'), None
    if folders is not None:
        dates = folders.findtext('PartitionDateSource') or DELIVERY
        if dates not in (EVENT, DELIVERY) or wanted.find('TargetObjectKeyFormat/SimplePrefix') is not None:
            raise S3Error('MalformedXML')
    grants = []
    for grant in wanted.findall('TargetGrants/Grant'):
        who, permission = grant.findtext('Grantee/ID') or grant.findtext('Grantee/URI'), grant.findtext('Permission')
        if not who or permission not in TARGET_PERMISSIONS:
            raise S3Error('MalformedXML')
        grants.append((who, permission))
    return {'target': target, 'prefix': prefix, 'dates': dates, 'grants': grants}


def render(spec):
    """The ``BucketLoggingStatus``."""
    if spec is None:
        return document('BucketLoggingStatus', '')
    rows = ''
    for who, permission in spec['grants']:
        kind, name = ('Group', 'URI') if who.startswith(acl.GROUPS) else ('CanonicalUser', 'ID')
        grantee = f'<Grantee {XSI} xsi:type="{kind}">{tag(name, who)}</Grantee>'
        rows += f'<Grant>{grantee}{tag("Permission", permission)}</Grant>'
    form = '<SimplePrefix></SimplePrefix>' if spec['dates'] is None else (
        f'<PartitionedPrefix>{tag("PartitionDateSource", spec["dates"])}</PartitionedPrefix>')
    return document('BucketLoggingStatus', (
        f'<LoggingEnabled>{tag("TargetBucket", spec["target"])}{tag("TargetPrefix", spec["prefix"])}'
        + (f'<TargetGrants>{rows}</TargetGrants>' if rows else '')
        + f'<TargetObjectKeyFormat>{form}</TargetObjectKeyFormat></LoggingEnabled>'))


class _Batch:
    """Lines of one bucket that are to be one object."""

    def __init__(self, call, spec):
        self.call, self.spec = call, spec
        self.lines, self.size, self.since = [], 0, time.monotonic()


class Logs(periodic.Periodic):
    """Takes lines, and delivers them: when there are enough, when they are old, at the end.

    :param api: the S3 filter. :param age: seconds that lines wait.
    """

    def __init__(self, api, age=AGE):
        super().__init__('s3-logs', self.deliver, min(age, 10))
        self.api, self.age = api, age
        self.batches, self.lock = {}, threading.Lock()

    def check(self, call, spec):
        """Raise where the logs of a call's bucket may not go where they are to."""
        target = self._target(call, spec)
        if not target.place or not self.api.info(target).ok:
            raise S3Error('InvalidTargetBucketForLogging', TargetBucket=spec['target'])
        if not self._may(call, target, spec):
            raise S3Error('AccessDenied')

    def _target(self, call, spec):
        target = Call(call.request, None, None, spec['target'], '')
        target.place = self.api.registry.account(call.request, spec['target'])
        if target.place is None and self._is_there(call, spec['target']):
            target.place = call.place       # (one that the Swift API has made, in the same account)
        return target

    @staticmethod
    def _is_there(call, bucket):
        return call.request.environ['kodiak.proxy'].infos.get(call.request, call.place, bucket).ok

    def _may(self, call, target, spec):
        known = acl.Acl.stored(self.api.info(target)['sysmeta'].get('s3api-acl'))
        listed = known is not None and (acl.LOGS, 'WRITE') in known.grants and self.api.access.ownership(target) != acl.ENFORCED
        policy = self.api.configs.get(target, 'policy')
        if policy is None:
            return listed
        owner = self.api.buckets.known_acl(call).owner
        facts = {**facts_of(target), 'aws:sourcearn': f'arn:aws:s3:::{call.bucket}',
                 'aws:sourceaccount': [owner, call.place, call.place.partition('_')[2]]}
        verdicts = {policy.verdict(DELIVERER, 's3:PutObject', f'arn:aws:s3:::{target.bucket}/{spec["prefix"]}{end}', facts,
                                   by_name=True)
                    for end in ('', '2000-01-01-00-00-00-0')}
        return 'deny' not in verdicts and (listed or 'allow' in verdicts)

    # taking

    def note(self, call, answer, code, seconds):
        """A line for a call that has been answered, if its bucket wants one. ``code``: of the error, or None."""
        if not call.place or 'logging' not in self.api.configs.index(call):
            return
        try:
            lines = [_line(self.api, call, answer, (answer.status, code), seconds)]
            lines += [_line(self.api, call, None, (status, problem), 0, (key, version))
                      for key, version, status, problem in call.deleted]
            self._note(call, self.api.configs.get(call, 'logging'), ''.join(lines))
        except (S3Error, Fault) as problem:
            LOG.warning('A request of the bucket %s is not in its logs: %s', call.bucket, problem)

    def _note(self, call, spec, line):
        key = (call.place, call.bucket, spec['target'], spec['prefix'], spec['dates'])
        full = None
        with self.lock:
            batch = self.batches.get(key)
            if batch is not None and (batch.size > SIZE or time.monotonic() - batch.since > self.age):
                full = self.batches.pop(key)
                batch = None
            if batch is None:
                batch = self.batches[key] = _Batch(self._kept(call), spec)
            if batch.size < MOST:
                batch.lines.append(line)
                batch.size += len(line)
        if full is not None:
            self._put(full)

    @staticmethod
    def _kept(call):
        # What is needed of a call when its connection has gone: whose bucket, by which proxy.
        request = call.request.sub('GET', '/', source='S3')
        for name in ('kodiak.identity', 'kodiak.authorize', 'kodiak.customer_key'):
            request.environ.pop(name, None)
        kept = Call(request, None, None, call.bucket, '')
        kept.place, kept.free = call.place, True
        return kept

    # delivering

    def deliver(self, all_of_them=False):
        """Put what has waited for long enough (or all); how many objects."""
        now = time.monotonic()
        with self.lock:
            due = [key for key, batch in self.batches.items() if all_of_them or now - batch.since > self.age or batch.size > SIZE]
            batches = [self.batches.pop(key) for key in due]
        return sum(self._put(batch) for batch in batches)

    def stop(self, timeout=10):
        """Put what there is, and end."""
        super().stop(timeout)
        self.deliver(True)

    def _put(self, batch):
        call, spec = batch.call, batch.spec
        try:
            target = self._target(call, spec)
            if not target.place or not self.api.info(target).ok or not self._may(call, target, spec):
                LOG.info('Logs of the bucket %s may not go to %s', call.bucket, spec['target'])
                return 0
            owner = self.api.buckets.known_acl(target).owner
            listed = acl.Acl(owner, [(owner, 'FULL_CONTROL'), *spec['grants']])
            headers = {'Content-Type': 'text/plain', **({acl.OBJECT: listed.store()} if spec['grants'] else {})}
            target.free = True
            path = f'/{target.bucket}/{self._key(call, spec)}'
            self.api.good(self.api.ask(target, 'PUT', path, headers, body=''.join(batch.lines).encode('utf-8', 'replace'),
                                   authorize=False), path)
        except (S3Error, Fault) as problem:
            LOG.warning('Logs of the bucket %s do not go to %s: %s', call.bucket, spec['target'], problem)
            return 0
        return 1

    def _key(self, call, spec):
        now = time.gmtime()
        folders, clock = '', '%Y-%m-%d-%H-%M-%S'
        if spec['dates'] is not None:
            owner = self.api.buckets.known_acl(call).owner
            folders = f'{owner}/{self.api.region}/{call.bucket}/' + time.strftime('%Y/%m/%d/', now)
            clock = '%Y-%m-%d-00-00-00' if spec['dates'] == EVENT else clock
        return f'{spec["prefix"]}{folders}{time.strftime(clock, now)}-{os.urandom(8).hex().upper()}'


def _operation(call):
    method, query = call.request.method, call.query
    if method == 'PUT' and call.request.headers.get('X-Amz-Copy-Source'):
        return 'REST.COPY.' + ('PART' if 'uploadId' in query else 'OBJECT')
    if 'uploadId' in query:
        return f'REST.{method}.' + ('PART' if method == 'PUT' else 'UPLOAD')
    for name, resource in RESOURCES.items():
        if name in query:
            return f'REST.{method}.' + (resource if call.key or resource != 'OBJECT_TAGGING' else 'BUCKET_TAGGING')
    return f'REST.{method}.' + ('OBJECT' if call.key else 'BUCKET')


def _word(text):
    """A field that has no blanks: what would end it, or the line, is percent-encoded."""
    return UNSAFE.sub(lambda match: f'%{ord(match[0]):02X}', text) if text else '-'


def _quoted(text):
    if not text:
        return '"-"'
    return '"' + UNSAFE.sub(lambda match: ' ' if match[0] == ' ' else f'%{ord(match[0]):02X}', text) + '"'


def _line(api, call, answer, outcome, seconds, one=None):
    # ``outcome``: status, error; ``one``: key, version of many that are deleted
    environ, get = call.request.environ, call.request.headers.get
    length = answer.headers.get('Content-Length') if one is None else None
    sent = length if call.request.method != 'HEAD' and length not in (None, '0') else None
    key, version = one or (call.key, answer.headers.get('X-Amz-Version-Id') or call.query.get('versionId'))
    size = None
    if call.key and not set(call.query) & set(RESOURCES):
        if call.request.method == 'PUT':
            size = get('X-Amz-Decoded-Content-Length') or get('Content-Length')
        elif call.request.method in ('GET', 'HEAD') and answer.ok:
            size = answer.headers.get('Content-Range', '').rpartition('/')[2] or length
    query = SECRET.sub(r'\1-', environ.get('QUERY_STRING', ''))
    path = quote(call.request.path) + ('?' + query if query else '')
    signature, line = call.signature, ' '.join((call.request.method, path, environ.get('SERVER_PROTOCOL', 'HTTP/1.1')))
    trans = environ.get('kodiak.trans_id', '-')
    return ' '.join((
        _word(api.buckets.known_acl(call).owner), call.bucket, time.strftime('[%d/%b/%Y:%H:%M:%S +0000]', time.gmtime()),
        _word(environ.get('REMOTE_ADDR')), _word(call.user_id) if signature is not None else '-', trans,
        _operation(call) if one is None else 'BATCH.DELETE.OBJECT',
        _word(quote(key)), _quoted(line), str(outcome[0]), outcome[1] or '-', sent or '-',
        size if natural(size or '') is not None else '-', str(int(seconds * 1000)), '-',
        _quoted(from_wsgi(get('Referer', ''))), _quoted(from_wsgi(get('User-Agent', ''))), _word(version), trans,
        '-' if signature is None else 'SigV4' if signature.version == 4 else 'SigV2', '-',
        '-' if signature is None else 'QueryString' if signature.presigned else 'AuthHeader', _word(get('Host')),
        '-', '-', 'Yes' if call.by_list else '-')) + '\n'
