"""Small filters: healthcheck, crossdomain, name_check, domain_remap, etag_quoter."""
import os
import re

from ..proxy.http import Filter, Response, error, is_true


class HealthCheck(Filter):
    """``GET /healthcheck``; 503 while the file ``disable_path`` exists."""

    def handle(self, request):
        """Answer, or pass on."""
        if request.environ.get('PATH_INFO') != '/healthcheck':
            return self.next(request)
        if (path := self.conf.get('disable_path')) and os.path.exists(path):
            return Response(503, b'DISABLED BY FILE', content_type='text/plain')
        return Response(200, b'OK', content_type='text/plain')


class CrossDomain(Filter):
    """``GET /crossdomain.xml``."""

    def handle(self, request):
        """Answer, or pass on."""
        if request.environ.get('PATH_INFO') != '/crossdomain.xml':
            return self.next(request)
        policy = self.conf.get('cross_domain_policy', '<allow-access-from domain="*" secure="false" />')
        body = ('<?xml version="1.0"?>\n<!DOCTYPE cross-domain-policy SYSTEM '
                '"http://www.adobe.com/xml/dtds/cross-domain-policy.dtd" >\n'
                f'<cross-domain-policy>\n{policy}\n</cross-domain-policy>')
        return Response(200, body.encode(), content_type='application/xml')


class NameCheck(Filter):
    """Refuses names with forbidden characters, that match a pattern, or are too long."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.forbidden = set(self.conf.get('forbidden_chars', '\'"`<>'))
        self.pattern = re.compile(self.conf.get('forbidden_regexp', r'/\./|/\.\./|/\.$|/\.\.$'))
        self.length = int(self.conf.get('maximum_length', 255))

    def handle(self, request):
        """400, or pass on."""
        path = request.path
        if self.forbidden & set(path) or len(path) > self.length or self.pattern.search(path):
            return error(400, 'Object/Container/Account name contains what is forbidden')
        return self.next(request)


class DomainRemap(Filter):
    """Accounts and containers in the host's name: ``container.account.<storage_domain>/object``."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.domains = ['.' + domain.strip().strip('.') for domain in self.conf.get('storage_domain', 'example.com').split(',')]
        self.prefixes = [prefix.strip() for prefix in self.conf.get('reseller_prefixes', 'AUTH').split(',')]
        self.default = self.conf.get('default_reseller_prefix', '')

    def handle(self, request):
        """Put the host's parts before the path."""
        host = request.headers.get('Host', '').partition(':')[0]
        domain = next((domain for domain in self.domains if host.endswith(domain)), None)
        if domain is None or request.environ.get('kodiak.sub'):
            return self.next(request)
        parts = host[:-len(domain)].split('.')
        if len(parts) > 2:
            return error(400, 'Bad domain in host header')
        account = parts[-1]
        if '_' not in account and '-' in account:
            account = account.replace('-', '_', 1)
        prefix = next((prefix for prefix in self.prefixes if account.lower().startswith(prefix.lower() + '_')), None)
        if prefix is not None:
            account = prefix + account[len(prefix):]
        elif self.default:
            account = f'{self.default}_{account}'
        else:
            return self.next(request)
        request.environ['kodiak.client_path'] = request.path
        request.path = '/'.join(['/v1', account, *parts[:-1]]) + (request.path if request.path != '/' or len(parts) > 1 else '')
        return self.next(request)


class EtagQuoter(Filter):
    """Etags in quotes, as HTTP has them, where a container, or else its account, says ``X-...-Rfc-Compliant-Etags: true``."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.default = is_true(self.conf.get('enable_by_default', ''))

    def handle(self, request):
        """Set what owners say; quote."""
        split = request.split() if request.path.startswith('/v1') else None
        proxy = request.environ.get('kodiak.proxy')
        if split is None or proxy is None:
            return self.next(request)
        if split[3] is None:
            kind = 'Account' if split[2] is None else 'Container'
            public, kept = f'X-{kind}-Rfc-Compliant-Etags', f'X-{kind}-Sysmeta-Rfc-Compliant-Etags'
            given = request.headers.pop(public)
            if given is not None and request.method in ('PUT', 'POST'):
                request.headers[kept] = str(is_true(given)) if given else ''
            answer = self.next(request)
            if kept in answer.headers:
                answer.headers[public] = answer.headers[kept]
            return answer
        answer = self.next(request)
        etag = answer.headers.get('Etag', '')
        if etag and not etag.startswith(('"', 'W/')) and self._wanted(request, proxy, split):
            answer.headers['Etag'] = f'"{etag}"'
        return answer

    def _wanted(self, request, proxy, split):
        for place in (split[1:3], split[1:2]):
            said = proxy.infos.get(request, *place)['sysmeta'].get('rfc-compliant-etags')
            if said is not None:
                return is_true(said)
        return self.default
