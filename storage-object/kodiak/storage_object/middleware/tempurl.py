"""Temporary URLs: ``?temp_url_sig=...&temp_url_expires=...`` signed with a key of the account or container."""
import base64
import calendar
import hmac
import ipaddress
import time

from kodiak.common.numbers import natural

from ..proxy.http import Filter, error, quote, to_wsgi

DIGESTS = ('sha1', 'sha256', 'sha512')
FORMATS = ('%Y-%m-%dT%H:%M:%SZ', '%Y-%m-%dT%H:%M:%S', '%Y-%m-%dT')
INCOMING = ('X-Timestamp', 'X-Open-Expired')
PRIVATE = ('X-Object-Meta-',)
PUBLIC = ('X-Object-Meta-Public-',)


def keys_of(infos, request, account, container):
    """``[(key, container only)]`` of a container and its account."""
    found = []
    for info, alone in ((infos.get(request, account), False), (infos.get(request, account, container), True)):
        for name in ('temp-url-key', 'temp-url-key-2'):
            if info['meta'].get(name):
                found.append((info['meta'][name], alone))
    return found


class TempUrl(Filter):
    """See the module."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.methods = self.conf.get('methods', 'GET HEAD PUT POST DELETE').split()
        self.digests = [d for d in self.conf.get('allowed_digests', 'sha1 sha256 sha512').split() if d in DIGESTS]

    def handle(self, request):
        """Check the signature of a request that has one."""
        text = request.environ.get('QUERY_STRING', '')
        if 'temp_url_' not in text or request.method == 'OPTIONS':
            return self.next(request)
        query = request.query
        if not {'temp_url_sig', 'temp_url_expires'} & set(query) or request.environ.get('kodiak.sub'):
            return self.next(request)
        split = request.split()
        proxy = request.environ.get('kodiak.proxy')
        prefix = query.get('temp_url_prefix')
        signature = self._signature(query.get('temp_url_sig', ''))
        expires = self._moment(query.get('temp_url_expires', ''))
        place = split is not None and (split[3] or (prefix == '' and split[2] and request.method in ('GET', 'HEAD')))
        if not place or split[0] not in ('v1', 'v1.0') or signature is None or not expires or (
                expires < time.time()) or request.method not in self.methods or proxy is None:
            return self._refuse(request)
        digest, signature = signature
        span = query.get('temp_url_ip_range')
        if prefix is not None and not (split[3] or '').startswith(prefix):
            return self._refuse(request)
        if span is not None:
            try:
                if ipaddress.ip_address(request.environ.get('REMOTE_ADDR', '')) not in ipaddress.ip_network(span):
                    return self._refuse(request)
            except ValueError:
                return self._refuse(request)
        version, account, container, name = split
        path = f'/{version}/{account}/{container}/{name if prefix is None else prefix}'
        if prefix is not None:
            path = 'prefix:' + path
        for key, alone in keys_of(proxy.infos, request, account, container):
            for method in self._stands_for(request.method):
                body = '\n'.join(([f'ip={span}'] if span is not None else []) + [method, str(expires), path])
                made = hmac.new(key.encode('latin-1'), body.encode(), digest).hexdigest()
                if hmac.compare_digest(made, signature):
                    return self._allow(request, split, alone)
        return self._refuse(request)

    @staticmethod
    def _stands_for(method):
        return {'HEAD': ('HEAD', 'GET', 'PUT', 'POST')}.get(method, (method,))

    def _signature(self, text):
        digest, colon, rest = text.partition(':')
        if colon:
            try:
                rest = base64.b64decode(rest.replace('-', '+').replace('_', '/') + '=' * (-len(rest) % 4)).hex()
            except ValueError:
                return None
        else:
            digest, rest = {40: 'sha1', 64: 'sha256', 128: 'sha512'}.get(len(text), ''), text.lower()
        return (digest, rest) if digest in self.digests and rest.isascii() else None

    @staticmethod
    def _moment(text):
        if (moment := natural(text)) is not None:
            return moment
        for form in FORMATS:
            try:
                return calendar.timegm(time.strptime(text, form))
            except ValueError:
                continue
        return 0

    @staticmethod
    def _refuse(request):
        return error(401, 'Temp URL invalid\n' if request.method != 'HEAD' else None,
                     {'Www-Authenticate': 'Swift realm="unknown"'})

    def _allow(self, request, split, alone):
        _, account, container, name = split
        headers, query = request.headers, request.query
        if request.method in ('PUT', 'POST') and headers.get('X-Object-Manifest') is not None:
            return error(400, 'Header X-Object-Manifest is not allowed with a temporary URL')
        if request.method in ('PUT', 'POST') and headers.get('X-Symlink-Target') is not None:
            return error(400, 'Header X-Symlink-Target is not allowed with a temporary URL')
        for header in INCOMING:
            headers.pop(header)

        def authorize(asked):
            # What the URL leads to (segments, links) stays in the account, or the container, whose key has signed.
            other = asked.split()
            if other and other[3] is None and not asked.environ.get('kodiak.sub'):
                return error(401)   # (a container by itself: only as a page of static web)
            if other and other[1] == account and (not alone or other[2] == container):
                return None
            return error(401)
        request.environ['kodiak.authorize'] = authorize
        request.environ['kodiak.identity'] = {'groups': set(), 'roles': set(), 'user': '.tempurl', 'project': None,
                                              'reseller': False, 'default_domain': False}
        request.environ['REMOTE_USER'] = '.wsgi.tempurl'
        if 'temp_url_prefix' in query:
            request.environ['kodiak.temporary'] = {'prefix': query['temp_url_prefix'], 'query': '&'.join(
                [f'{k}={quote(query[k])}' for k in ('temp_url_prefix', 'temp_url_expires', 'temp_url_sig', 'temp_url_ip_range')
                 if k in query] + (['inline'] if 'inline' in query else []))}
        kept = {k: v for k, v in query.items() if not k.startswith('temp_url_') and k not in (
            'filename', 'inline', 'version-id')}     # (a version's id is not signed)
        request.set_query(kept)
        answer = self.next(request)
        for header in [h for h in answer.headers if h.startswith(PRIVATE) and not h.startswith(PUBLIC)]:
            del answer.headers[header]
        if request.method in ('GET', 'HEAD') and answer.ok and name and not name.endswith('/'):
            self._disposition(query, name, answer)
        return answer

    @staticmethod
    def _disposition(query, name, answer):
        def of(kind, filename):
            plain = filename.replace('\\', '\\\\').replace('"', '\\"')
            return f'{kind}; filename="{to_wsgi(plain)}"; filename*=UTF-8\'\'{quote(filename, " /")}'
        given = query.get('filename')
        if given:
            value = of('inline' if 'inline' in query else 'attachment', given)
        elif 'inline' in query:
            value = 'inline'
        elif 'Content-Disposition' in answer.headers:
            return
        else:
            value = of('attachment', name.rstrip('/').rpartition('/')[2])
        answer.headers['Content-Disposition'] = value.replace('\n', '%0A').replace('\r', '%0D')
        # A shared cache may keep it no longer than the URL holds.
        answer.headers['Expires'] = time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime(TempUrl._moment(
            query['temp_url_expires'])))
