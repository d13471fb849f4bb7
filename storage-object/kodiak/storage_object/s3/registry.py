"""Which account a bucket's name belongs to: bucket names are one world, containers are an account's.

An object a bucket, in the account ``.s3``. A container that was made by the Swift API is a bucket too, to its own account only.
"""
import orjson

ACCOUNT, CONTAINER = '.s3', 'buckets'
PATH = f'/v1/{ACCOUNT}/{CONTAINER}'
OWNER = 'X-Object-Sysmeta-S3Api-Account'


class Registry:
    """Looks bucket names up, through the proxy's cache.

    :param api: the S3 filter.
    """

    AGE = 30

    def __init__(self, api):
        self.api = api

    def _ask(self, request, method, path, headers=None):
        return self.api.next(request.sub(method, path, headers, authorize=False, source='S3')).drain()

    def account(self, request, bucket):
        """The account of a bucket, or None."""
        cache = request.environ['kodiak.proxy'].cache
        key = f's3-bucket:{bucket}'
        known = cache.get(key)
        if known is None:
            count = cache.count(key)
            found = self._ask(request, 'HEAD', f'{PATH}/{bucket}')
            known = found.headers.get(OWNER, '') if found.ok else ''
            if found.ok or found.status == 404:
                cache.set(key, known, count, self.AGE if known else 2)
        return known or None

    def claim(self, request, bucket, account):
        """Let a name be an account's; False if it is another's."""
        for _ in range(2):
            put = self._ask(request, 'PUT', f'{PATH}/{bucket}', {
                OWNER: account, 'If-None-Match': '*', 'Content-Type': 'text/plain'})
            if put.status != 404:
                break
            self._ask(request, 'PUT', PATH)
        request.environ['kodiak.proxy'].cache.forget(f's3-bucket:{bucket}')
        if put.status in (409, 412):
            return self.account(request, bucket) == account
        return put.ok

    def give_up(self, request, bucket):
        """Let a name be free."""
        self._ask(request, 'DELETE', f'{PATH}/{bucket}')
        request.environ['kodiak.proxy'].cache.forget(f's3-bucket:{bucket}')

    def every(self, request):
        """All ``(bucket, account)``."""
        marker = ''
        while True:
            query = {'format': 'json', 'marker': marker}
            answer = self.api.next(request.sub('GET', PATH, query=query, authorize=False, source='S3'))
            rows = orjson.loads(answer.read()) if answer.ok else []
            if not rows:
                return
            for row in rows:
                account = self.account(request, row['name'])
                if account:
                    yield row['name'], account
            marker = rows[-1]['name']
