"""Certificates that clients show, as servers in front pass them on."""
import base64
import urllib.parse

import pytest

from kodiak.common import certificates, wsgi

DER = b'\x30\x82' + bytes(range(256)) * 2
TEXT = base64.b64encode(DER).decode()
PEM = certificates.pem(DER)


@pytest.mark.parametrize('text', [
    PEM, PEM.replace('\n', ' '), PEM.replace('\n', '\n\t'), urllib.parse.quote(PEM, safe=''), urllib.parse.quote(PEM),
    f':{TEXT}:', TEXT, PEM + certificates.pem(b'\x30another')])
def test_a_certificate_is_read_however_it_is_written(text):
    assert certificates.read(text) == DER


@pytest.mark.parametrize('text', ['', '(null)', ':', '::', 'no certificate', base64.b64encode(b'text').decode(),
                                  '-----BEGIN CERTIFICATE-----%%%-----END CERTIFICATE-----', ':' + 'A' * 70000 + ':', 'Zürich'])
def test_what_is_none_is_none(text):
    assert certificates.read(text) is None


def through(peer, header, environ):
    seen = []
    wsgi.Forwarded(lambda environ, start_response: seen.append(environ), ['10.0.0.0/24'], header)(
        {'REMOTE_ADDR': peer, **environ}, None)
    return seen[0]


def test_a_trusted_proxy_passes_a_certificate_on():
    sent = {'HTTP_CLIENT_CERT': f':{TEXT}:', 'HTTP_X_FORWARDED_FOR': '192.0.2.7'}
    found = through('10.0.0.1', 'Client-Cert', sent)
    assert found[certificates.ENVIRON] == PEM and certificates.shown(found) == DER
    assert 'HTTP_CLIENT_CERT' not in found and found['REMOTE_ADDR'] == '192.0.2.7'


@pytest.mark.parametrize(('peer', 'header', 'text'), [
    ('192.0.2.7', 'Client-Cert', TEXT), ('', 'Client-Cert', TEXT), ('10.0.0.1', None, TEXT), ('10.0.0.1', 'X-Other', TEXT),
    ('10.0.0.1', 'Client-Cert', 'nonsense')])
def test_nobody_else_does(peer, header, text):
    assert certificates.shown(through(peer, header, {'HTTP_CLIENT_CERT': text})) is None


def test_a_token_fits_its_certificate():
    token = certificates.binding(DER)
    assert certificates.bound(token) and not certificates.bound({'user': {}})
    assert certificates.fits(token, DER)
    assert not certificates.fits(token, DER + b'x') and not certificates.fits(token, None)
    keystones = {'oauth2_credential': token['oauth2_credential']}
    assert certificates.fits(keystones, DER) and not certificates.fits(keystones, DER + b'x')
    assert not certificates.fits({'cnf': {'jkt': 'another way to bind'}}, DER)
