"""Fetching what a user names by URL, without letting the user reach what only this host can reach.

Every address that a name resolves to is checked before one of them is connected to, and that same address is connected
to, so that a name cannot mean one thing when it is checked and another when it is used. Redirects are checked like the first URL.
"""
import http.client
import ipaddress
import logging
import socket
import ssl
import urllib.parse

from kodiak.common import errors
from kodiak.common.api import schema as schemas

LOG = logging.getLogger(__name__)
REDIRECTS = 5
CONNECT_SECONDS = 15
READ_SECONDS = 60
DEFAULT_PORTS = {'http': 80, 'https': 443}
#: Addresses of IPv6 whose last bits are one of IPv4, which a gateway of the network goes to (RFC 6052).
NAT64 = ipaddress.ip_network('64:ff9b::/96')
# Not for the world, though some releases of Python say so: protocol assignments, and translation within a site.
SPECIAL = tuple(map(ipaddress.ip_network, ('192.0.0.0/24', '64:ff9b:1::/48')))


class Refused(errors.BadRequest):
    """The URL is one that is not fetched."""


class Guard:
    """What may be fetched.

    :param options: the group ``[imports]``: ``web_ports``, ``web_hosts``, ``web_networks``.
    """

    def __init__(self, options):
        self.ports = {int(port) for port in options.web_ports}
        self.hosts = {host.lower() for host in options.web_hosts}
        self.networks = [ipaddress.ip_network(network) for network in options.web_networks]

    def check(self, url):
        """The parts of a URL that may be fetched, as far as can be told without asking the DNS; ``Refused`` otherwise."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            raise Refused(f"Invalid URI '{url[:200]}'.") from None
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise Refused(f"The URI '{url[:200]}' does not pass filtering: it must begin with http:// or https://.")
        if parts.username is not None or parts.password is not None or any(ord(c) <= 32 or ord(c) == 127 for c in url):
            raise Refused('The URI does not pass filtering: it must hold no credentials, spaces or control characters.')
        port = port or DEFAULT_PORTS[parts.scheme]
        if port not in self.ports:
            raise Refused(f"The URI '{url[:200]}' does not pass filtering: the port {port} is not allowed.")
        if self.hosts and parts.hostname.lower() not in self.hosts:
            raise Refused(f"The URI '{url[:200]}' does not pass filtering: the host {parts.hostname} is not allowed.")
        try:
            address = ipaddress.ip_address(parts.hostname.strip('[]'))
        except ValueError:
            pass
        else:
            self.check_address(address, parts.hostname)
        return parts, port

    def check_address(self, address, host):
        """``Refused`` for an address that is not public and not in one of the allowed networks."""
        address = getattr(address, 'ipv4_mapped', None) or address
        if address.version == NAT64.version and address in NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xffffffff)
        if any(address in network for network in self.networks if network.version == address.version):
            return
        hidden = [getattr(address, name, None) for name in ('sixtofour', 'teredo')]
        if hidden[1]:
            hidden[1] = hidden[1][1]
        for one in (address, *filter(None, hidden)):
            if not one.is_global or one.is_multicast or one.is_reserved or getattr(one, 'is_site_local', False) or any(
                    one in network for network in SPECIAL if network.version == one.version):
                raise Refused(f'The host {host} does not pass filtering: its address is not a public one.')

    def resolve(self, host, port):
        """``[(family, socket address)]`` of a host, every one of them checked."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise errors.BadRequest(f'The host {host} cannot be resolved.') from None
        for _, _, _, _, where in found:
            self.check_address(ipaddress.ip_address(where[0].partition('%')[0]), host)
        return [(family, where) for family, _, _, _, where in found]


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address."""

    def __init__(self, guard, host, port, tls):
        super().__init__(host, port, timeout=CONNECT_SECONDS)
        self._guard = guard
        self._tls = tls

    def connect(self):
        failure = None
        for family, where in self._guard.resolve(self.host, self.port):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_SECONDS)
                connection.connect(where)
                if self._tls:
                    connection = ssl.create_default_context().wrap_socket(connection, server_hostname=self.host)
                connection.settimeout(READ_SECONDS)
            except OSError as error:
                connection.close()
                failure = error
                continue
            self.sock = connection
            return
        raise failure or OSError('no address')


class Fetch:
    """An open download: ``size`` (bytes, or None where the server doesn't say) and :meth:`read`.

    :raises Refused: the URL, or one that it redirects to, is not fetched. :raises BadRequest: the server has no such thing.
    :raises Unavailable: it cannot be reached.
    """

    def __init__(self, guard, url, offset=0):
        self.url = url
        for _ in range(REDIRECTS + 1):
            parts, port = guard.check(self.url)
            self._connection = _Connection(guard, parts.hostname, port, parts.scheme == 'https')
            try:
                answer = self._ask(parts, offset)
            except errors.Error:
                self._connection.close()
                raise
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                LOG.info('%s cannot be fetched: %s', parts.hostname, error)
                raise errors.Unavailable(f'The host {parts.hostname} cannot be reached.') from None
            if answer.status in (301, 302, 303, 307, 308) and answer.headers.get('Location'):
                self._connection.close()
                try:
                    self.url = urllib.parse.urljoin(self.url, answer.headers['Location'])
                except ValueError:
                    raise Refused(f'The host {parts.hostname} redirects to an invalid URI.') from None
                continue
            break
        else:
            raise Refused(f'There are more than {REDIRECTS} redirects.')
        if answer.status != (206 if offset else 200):
            self._connection.close()
            error = errors.Unavailable if answer.status >= 500 else errors.BadRequest
            raise error(f'The host {parts.hostname} answered {answer.status}.')
        if answer.headers.get('Content-Encoding', 'identity') != 'identity':
            self._connection.close()
            raise errors.BadRequest(f'The host {parts.hostname} sends its data in an encoding that was not asked for.')
        self._answer = answer
        told = answer.headers.get('Content-Length')
        self.size = None if told is None else schemas.natural(told)
        if self.size is None and told is not None:
            self._connection.close()
            raise errors.BadRequest(f'The host {parts.hostname} says that its data has an impossible length.')

    def _ask(self, parts, offset):
        target = urllib.parse.urlunsplit(('', '', parts.path or '/', parts.query, ''))
        headers = {'Accept-Encoding': 'identity', 'User-Agent': 'kodiak-image', **({'Range': f'bytes={offset}-'} if offset else {})}
        self._connection.request('GET', urllib.parse.quote(target, safe="/?&=%:@!$'()*+,;~-._"), headers=headers)
        return self._connection.getresponse()

    def read(self, size):
        """The next piece; b'' at the end. Raises ``Unavailable`` where the server breaks off."""
        try:
            return self._answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise errors.Unavailable(f'The host {self._connection.host} broke off: {type(error).__name__}.') from None

    def close(self):
        """Let go of the connection."""
        self._connection.close()
