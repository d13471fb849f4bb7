"""Containers kept the same as others, perhaps of another cluster: what owners set, and the requests that keep them so.

``X-Container-Sync-To`` is a URL, or ``//realm/cluster/account/container`` of the realms that ``realms = <file>`` names (sections of
``key``, ``key2`` and ``cluster_<name> = <URL>``); ``X-Container-Sync-Key`` is what both containers have in common. A request that
knows both the realm's key and the containers' (``X-Container-Sync-Auth``), or for a URL the containers' key, may change objects,
and says when they were changed.
"""
import configparser
import hmac
import re
import urllib.parse

from ..proxy.http import Fault, Filter, allow, error

STAMP = re.compile(r'^\d{10}\.\d{5}(_[0-9a-f]{16})?$')


class Realms:
    """Keys and clusters of realms, from a file."""

    def __init__(self, path=None):
        self.realms = {}
        if path:
            parser = configparser.ConfigParser(interpolation=None)
            with open(path) as file:
                parser.read_file(file)
            for name in parser.sections():
                section = parser[name]
                self.realms[name.upper()] = {
                    'keys': [section[key] for key in ('key', 'key2') if section.get(key)],
                    'clusters': {key[8:].upper(): url.rstrip('/') for key, url in section.items() if key.startswith('cluster_')}}

    def url(self, text):
        """``(URL, realm)`` that a X-Container-Sync-To means, the realm None for a plain URL; 400 if it means none."""
        if text.startswith('//'):
            parts = text[2:].strip('/').split('/')
            if len(parts) != 4 or not all(parts):
                raise Fault(400, 'Invalid X-Container-Sync-To')
            realm, cluster, account, container = parts
            known = self.realms.get(realm.upper())
            endpoint = known and known['clusters'].get(cluster.upper())
            if not endpoint:
                raise Fault(400, 'No such realm or cluster in X-Container-Sync-To')
            return f'{endpoint}/{account}/{container}', realm.upper()
        url = urllib.parse.urlsplit(text)
        parts = url.path.strip('/').split('/')
        if url.scheme not in ('http', 'https') or not url.hostname or url.query or url.fragment or len(parts) != 3 or '' in parts:
            raise Fault(400, 'Invalid X-Container-Sync-To')
        return text.rstrip('/'), None

    def sign(self, realm, method, path, stamp, nonce, key):
        """The signatures by each of a realm's keys."""
        text = '\n'.join((method, path, stamp, nonce, key)).encode('latin-1', 'replace')
        return [hmac.new(secret.encode(), text, 'sha1').hexdigest() for secret in self.realms[realm]['keys']]


class ContainerSync(Filter):
    """See the module."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.realms = Realms(self.conf.get('realms'))
        self.hosts = {host.strip() for host in self.conf.get('allowed_sync_hosts', '127.0.0.1').split(',')}

    def handle(self, request):
        """Check what owners set, and who says to keep containers the same."""
        stamp = request.environ.pop('kodiak.sync_timestamp', None)
        split = request.split()
        if split is None or split[2] is None or request.environ.get('kodiak.sub'):
            return self.next(request)
        headers = request.headers
        if split[3] is None:
            if request.method in ('PUT', 'POST') and headers.get('X-Container-Sync-To'):
                self._check(request, headers['X-Container-Sync-To'])
            return self.next(request)
        if stamp is None or request.method not in ('PUT', 'POST', 'DELETE', 'HEAD', 'GET'):
            return self.next(request)
        info = request.environ['kodiak.proxy'].infos.get(request, split[1], split[2])
        key, given = info['sync_key'], headers.pop('X-Container-Sync-Auth')
        told = headers.pop('X-Container-Sync-Key')
        if not key or not STAMP.match(stamp) or not (self._signed(request, given, stamp, key) if given else hmac.compare_digest(
                (told or '').encode(), key.encode())):
            return error(401, 'X-Container-Sync-Auth header not valid; contact cluster operator for support.')
        headers['X-Timestamp'] = stamp
        request.environ['kodiak.authorize'] = allow
        request.environ['kodiak.override'] = True
        return self.next(request)

    def _check(self, request, text):
        _, realm = self.realms.url(text)
        if realm is None:
            host = urllib.parse.urlsplit(text).hostname
            own = (request.headers.get('Host') or '').rpartition(':')[0] or request.headers.get('Host')
            if host not in self.hosts and host != own:
                raise Fault(400, f'Invalid host {host!r} in X-Container-Sync-To')

    def _signed(self, request, given, stamp, key):
        parts = given.split()
        if len(parts) != 3 or parts[0].upper() not in self.realms.realms:
            return False
        made = self.realms.sign(parts[0].upper(), request.method, request.path, stamp, parts[1], key)
        return any(hmac.compare_digest(signature.encode(), parts[2].encode()) for signature in made)
