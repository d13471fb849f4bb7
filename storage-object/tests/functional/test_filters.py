"""Filters that a pipeline may have: rates, etags in quotes, the access log, listings' forms, pages of temporary URLs."""
import hmac
import logging
import time
import xml.etree.ElementTree as ElementTree

import pytest


@pytest.fixture
def slow(make_call, monkeypatch):
    """A client of a pipeline with rates, and what it slept; time does not pass by itself."""
    slept, clock = [], [1000.0]

    def sleep(seconds):
        slept.append(seconds)
        clock[0] += seconds

    def make(**options):
        made = make_call({'ratelimit': options})
        monkeypatch.setattr('kodiak.storage_object.middleware.quotas.time', type('Clock', (), {
            'monotonic': staticmethod(lambda: clock[0]), 'sleep': staticmethod(sleep)}))
        return made, slept
    return make


def test_rates_of_a_container(slow):
    call, slept = slow(container_ratelimit_0='10', container_listing_ratelimit_0='1', max_sleep_time_seconds='0.15')
    call('PUT', '/v1/AUTH_test/c')
    statuses = [call('PUT', '/v1/AUTH_test/c/o', b'x').status for _ in range(8)]
    assert statuses == [201] * 8
    assert [round(seconds, 2) for seconds in slept if seconds > 0.01] == [0.1, 0.1]
    assert [call('GET', '/v1/AUTH_test/c').status for _ in range(7)] == [200] * 6 + [498]
    assert call('GET', '/v1/AUTH_test/c/o').status == 200


def test_accounts_that_are_barred_and_free(slow):
    call, slept = slow(account_ratelimit='0.001', account_whitelist='AUTH_test', account_blacklist='AUTH_other')
    assert [call('PUT', f'/v1/AUTH_test/{number}').status for number in range(8)] == [201] * 8
    assert not slept
    assert call('GET', '/v1/AUTH_other/c').status == 497


def test_etags_in_quotes(make_call):
    call = make_call({'etag_quoter': {}})
    call('PUT', '/v1/AUTH_test/c')
    plain = call('PUT', '/v1/AUTH_test/c/o', b'x').headers['Etag']
    call('POST', '/v1/AUTH_test', headers={'X-Account-Rfc-Compliant-Etags': 'true'})
    assert call('GET', '/v1/AUTH_test/c/o').headers['Etag'] == f'"{plain}"'
    call('POST', '/v1/AUTH_test/c', headers={'X-Container-Rfc-Compliant-Etags': 'false'})
    assert call('GET', '/v1/AUTH_test/c/o').headers['Etag'] == plain
    assert call('HEAD', '/v1/AUTH_test/c').headers['X-Container-Rfc-Compliant-Etags'] == 'False'


def test_the_log_has_the_form_that_was_asked_for(make_call, caplog):
    call = make_call({'catch_errors': {'log_format': '{method} {account}|{container}|{object} {status} {user}{query}'}})
    caplog.set_level(logging.INFO, 'kodiak.object.access')
    call('PUT', '/v1/AUTH_test/c')
    call('GET', '/v1/AUTH_test/c/a%0Ab?x=1')
    call('GET', '/v1/AUTH_test/c/o?temp_url_sig=secret')
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-3:-1] == ['PUT AUTH_test|c|- 201 test:tester', 'GET AUTH_test|c|a%0Ab 404 test:tester?x=1']
    assert 'secret' not in lines[-1]
    with pytest.raises(KeyError):
        make_call({'catch_errors': {'log_format': '{password}'}})


def test_listings_have_three_forms(call, box):
    call('PUT', box + '/<&>', b'x')
    assert call('GET', box).body == b'<&>\n'
    root = ElementTree.fromstring(call('GET', box + '?format=xml').body)
    assert [(e.findtext('name'), e.findtext('bytes')) for e in root.iter('object')] == [('<&>', '1')]
    assert call('GET', box, headers={'Accept': 'application/json'}).headers['Content-Type'].startswith('application/json')
    assert call('GET', box, headers={'Accept': 'image/png'}).status == 406


def test_a_temporary_url_leads_through_pages(call, box):
    call('POST', box, headers={'X-Container-Meta-Web-Listings': 'true', 'X-Container-Meta-Temp-URL-Key': 'k'})
    for name in ('dir/o', 'dir/sub/o', 'other'):
        call('PUT', f'{box}/{name}', b'x')
    expires = int(time.time()) + 60

    def signed(prefix):
        signature = hmac.new(b'k', f'GET\n{expires}\nprefix:{box}/{prefix}'.encode(), 'sha256').hexdigest()
        return f'temp_url_prefix={prefix}&temp_url_expires={expires}&temp_url_sig={signature}'
    page = call('GET', f'{box}/dir/?{signed("dir/")}', token=False)
    assert page.status == 200
    assert f'./o?{signed("dir/")}'.replace('&', '&amp;').encode() in page.body and b'../' not in page.body
    assert call('GET', f'{box}/?{signed("")}', token=False).status == 200
    assert call('GET', f'{box}/?{signed("dir/")}', token=False).status == 401
    assert call('GET', f'{box}?format=json&{signed("")}', token=False).status == 301
    call('POST', box, headers={'X-Remove-Container-Meta-Web-Listings': 'x'})
    assert call('GET', f'{box}/?{signed("")}', token=False).status == 401


def test_metadata_of_several_requests_has_one_limit(call, box):
    for number in range(15):
        assert call('POST', box, headers={f'X-Container-Meta-{number:02d}': 'v' * 250}).status == 204
    assert call('POST', box, headers={'X-Container-Meta-More': 'v' * 256, 'X-Container-Meta-Still': 'v' * 256}).status == 400
    assert call('POST', box, headers={'X-Container-Meta-More': 'v' * 250, 'X-Container-Meta-00': '',
                                      'X-Container-Meta-01': ''}).status == 204
