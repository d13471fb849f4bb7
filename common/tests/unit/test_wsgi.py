"""What stands around an API: proxies in front, health checks."""
import pytest

from kodiak.common import wsgi
from kodiak.common.runtime import Runtime


def forwarded(peer, trusted=('127.0.0.1', '10.0.0.0/24'), **headers):
    """What an application is told of a request: (address, scheme, names of X-Forwarded headers)."""
    environ = {'HTTP_X_FORWARDED_' + name: value for name, value in headers.items()}
    environ.update({'REMOTE_ADDR': peer, 'wsgi.url_scheme': 'http'})
    seen = []
    wsgi.Forwarded(lambda environ, start_response: seen.append(environ), trusted)(environ, None)
    return seen[0]['REMOTE_ADDR'], seen[0]['wsgi.url_scheme'], {
        name[17:] for name in seen[0] if name.startswith('HTTP_X_FORWARDED')}


@pytest.mark.parametrize(('peer', 'chain', 'client'), [
    ('10.0.0.9', '192.0.2.7', '192.0.2.7'),
    ('10.0.0.9', '198.51.100.1, 192.0.2.7', '192.0.2.7'),       # what the client itself claims is not believed
    ('10.0.0.9', '192.0.2.7, 10.0.0.3', '192.0.2.7'),
    ('10.0.0.9', '10.0.0.4,10.0.0.3', '10.0.0.4'),
    ('10.0.0.9', 'unknown', '10.0.0.9'),
    ('10.0.0.9', '', '10.0.0.9'),
    ('::1', '192.0.2.7', '::1'),
    ('', '192.0.2.7', ''),
])
def test_a_client_is_who_the_outermost_trusted_proxy_saw(peer, chain, client):
    assert forwarded(peer, FOR=chain, PROTO='https')[0] == client


def test_the_scheme_is_what_the_nearest_proxy_says():
    assert forwarded('127.0.0.1', PROTO='https')[1] == 'https'
    assert forwarded('127.0.0.1', PROTO='https, http')[1] == 'http'


def test_of_strangers_nothing_is_believed():
    assert forwarded('192.0.2.1', FOR='10.0.0.1', PROTO='https', HOST='evil.example') == ('192.0.2.1', 'http', set())
    assert forwarded('127.0.0.1', HOST='cloud.example') == ('127.0.0.1', 'http', {'HOST'})


class Ill:
    url = None

    def healthy(self):
        return False


@pytest.mark.parametrize(('path', 'status'), [('/healthcheck', '503'), ('/healthcheck/serving', '200'), ('/elsewhere', None)])
def test_without_its_broker_an_api_goes_on_serving(path, status):
    said = []
    check = wsgi.HealthCheck(lambda environ, start_response: [], Runtime('trial', None, bus=Ill()))
    check({'PATH_INFO': path}, lambda line, headers: said.append(line[:3]))
    assert said == [status] if status else said == []
