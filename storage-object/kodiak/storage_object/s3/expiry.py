"""Carries buckets' lifecycle rules out: once a day for each bucket, by whichever proxy comes first."""
import io
import logging
import random
import time

import orjson

from kodiak.common import periodic

from ..middleware.versioning import DATA_TIMES
from ..proxy.http import Request
from . import lifecycle, tagging
from .call import Call
from .errors import S3Error
from .registry import ACCOUNT
from .xml import moment_of_row

LOG = logging.getLogger(__name__)
CLAIMS = f'/v1/{ACCOUNT}/lifecycle'
MARKER = 'application/x-deleted;swift_versions_deleted=1'
PAGE = 1000


class Expiry(periodic.Periodic):
    """A thread of the proxy; the first pass comes after a while, and not in all proxies at once.

    :param api: the S3 filter. :param proxy: the proxy application, at the end of its pipeline.
    """

    EVERY = 3600

    def __init__(self, api, proxy):
        super().__init__('s3-lifecycle', self.run_once, lambda: random.uniform(0.5, 1.5) * self.EVERY)
        self.api, self.proxy = api, proxy

    def _request(self):
        return Request.of({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/', 'QUERY_STRING': '', 'wsgi.input': io.BytesIO(),
                           'wsgi.url_scheme': 'http', 'kodiak.proxy': self.proxy, 'kodiak.trans_id': 's3-lifecycle'})

    def run_once(self, now=None):
        """A pass over all buckets at a moment; what has gone: how many ``objects``, ``versions``, ``uploads``."""
        now = time.time() if now is None else now
        gone = {'objects': 0, 'versions': 0, 'uploads': 0}
        for bucket, account in self.api.registry.every(self._request()):
            if self.stopping:
                break
            call = Call(self._request(), None, None, bucket, '')
            call.place, call.free = account, True
            try:
                if 'lifecycle' in self.api.configs.index(call) and self._claim(bucket, now):
                    self._bucket(call, self.api.configs.get(call, 'lifecycle'), now, gone)
            except S3Error as problem:
                LOG.warning('Lifecycle of %s: %s', bucket, problem.message)
        return gone

    def _claim(self, bucket, now):
        """Whether nobody has done a bucket today."""
        name = f'{CLAIMS}/{bucket}/{int(now // lifecycle.DAY)}'
        headers = {'If-None-Match': '*', 'X-Delete-After': str(2 * lifecycle.DAY), 'Content-Type': 'text/plain'}
        for _ in range(2):
            put = self.api.next(self._request().sub('PUT', name, headers, authorize=False, source='S3')).drain()
            if put.status != 404:
                return put.status == 201
            self.api.next(self._request().sub('PUT', CLAIMS, authorize=False, source='S3')).drain()
        return False

    def _bucket(self, call, rules, now, gone):
        rules = [rule for rule in rules if rule.enabled]
        for rule in rules:
            if rule.abort is not None:
                gone['uploads'] += self.api.multipart.abandon(call, rule.abort, rule.prefix, now)
        versioned = self.api.versioned(call) is not None
        key, versions = None, []
        for row in self._rows(call, versioned):
            if self.stopping:
                return
            if row['name'] != key:
                self._key(call, rules, key, versions, now, gone)
                key, versions = row['name'], []
            versions.append(row)
        self._key(call, rules, key, versions, now, gone)

    def _rows(self, call, versioned):
        query = {'format': 'json', 'limit': str(PAGE), **({'versions': ''} if versioned else {})}
        while True:
            answer = self.api.ask(call, 'GET', '/' + call.bucket, {DATA_TIMES: 'yes'}, query=query)
            rows = orjson.loads(self.api.good(answer, '/' + call.bucket).read())
            yield from rows
            if len(rows) < PAGE:
                return
            query['marker'] = rows[-1]['name']
            if versioned:
                query['version_marker'] = rows[-1]['version_id']

    def _key(self, call, rules, key, versions, now, gone):
        """Whatever is to go of one key; ``versions``: its rows, the newest first."""
        if not versions:
            return
        newest = versions[0]
        current = newest.get('is_latest', True) or len(versions) == 1
        if current and newest['content_type'] == MARKER:
            if len(versions) == 1 and any(rule.marker and key.startswith(rule.prefix) for rule in rules):
                self._remove(call, key, newest['version_id'], gone, 'versions')
        elif current:
            def tags():
                return tagging.stored(self.api.head(call, key).headers)
            if any(rule.covers(key, newest['bytes'], tags) and (rule.ends(moment_of_row(newest)) or now) < now for rule in rules):
                self._remove(call, key, None, gone, 'objects')
            call.heads.clear()
        self._older(call, rules, key, versions, now, gone)

    def _older(self, call, rules, key, versions, now, gone):
        wanted = [rule for rule in rules if rule.noncurrent is not None and key.startswith(rule.prefix)]
        for place, row in enumerate(versions[1:], 1):
            # It is not current since the next newer one came.
            since = moment_of_row(versions[place - 1])
            for rule in wanted:
                if place > rule.keep and rule.larger < row['bytes'] < rule.smaller and (
                        (since // lifecycle.DAY + rule.noncurrent + 1) * lifecycle.DAY < now):
                    self._remove(call, key, row['version_id'], gone, 'versions')
                    break

    def _remove(self, call, key, version, gone, what):
        try:
            self.api.objects.remove(call, key, version)
            gone[what] += 1
        except S3Error as problem:
            LOG.info('Lifecycle keeps %s/%s: %s', call.bucket, key, problem.message)
