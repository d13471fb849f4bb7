"""Metrics that can be scraped, log lines with ids and without secrets."""
import json
import logging
import os
import subprocess
import sys

import pytest

from kodiak.common import metrics


def test_what_was_counted_is_rendered():
    metrics.observe_request('try', 'GET', '/v2/things/{id}', '200', 0.003)
    metrics.rpc('call', 'try-agent', 'add', 'ok', 0.1)
    text = metrics.render().decode()
    assert 'kodiak_http_request_seconds_count{code="200",method="GET",route="/v2/things/{id}",service="try"} 1.0' in text
    assert 'kodiak_rpc_seconds_bucket{le="0.1",name="add",outcome="ok",side="call",table="try-agent"} 1.0' in text


def test_what_is_looked_up_is_asked_at_each_scrape_and_may_fail():
    numbers = [3, 4]

    def look():
        yield {'state': 'running'}, numbers.pop(0), 60

    def fail():
        raise ConnectionError
    metrics.collect('tries', look)
    metrics.collect('tries', fail)
    try:
        for number in (3, 4):
            text = metrics.render().decode()
            assert f'kodiak_tries{{state="running"}} {number}.0' in text
            assert 'kodiak_tries_oldest_seconds{state="running"} 60.0' in text
    finally:
        metrics.forget('tries', look)
        metrics.forget('tries', fail)


def test_what_is_looked_up_may_be_several_numbers():
    def look():
        yield {'of': 'a'}, 1, 2, 3
    metrics.collect('ways', look, {'': 'Left', '_done': 'Done', '_rate': 'A second'})
    try:
        text = metrics.render().decode()
        assert 'kodiak_ways{of="a"} 1.0' in text and 'kodiak_ways_done{of="a"} 2.0' in text
        assert 'kodiak_ways_rate{of="a"} 3.0' in text and 'kodiak_ways_oldest_seconds' not in text
    finally:
        metrics.forget('ways', look)


def test_several_processes_are_summed(tmp_path):
    code = 'from kodiak.common import metrics; metrics.observe_request("t", "GET", "/", "200", 1)'
    environment = {**os.environ, 'PROMETHEUS_MULTIPROC_DIR': str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, '-c', code], check=True, env=environment)
    out = subprocess.run([sys.executable, '-c', 'from kodiak.common import metrics; print(metrics.render().decode())'],
                         check=True, env=environment, capture_output=True, text=True).stdout
    assert 'kodiak_http_request_seconds_count{code="200",method="GET",route="/",service="t"} 2.0' in out


LOGGING = """
import logging, sys
from kodiak.common import config, context, log
conf = config.load('try', args=sys.argv[1:], files=[])
log.setup(conf, 'kodiak-try')
logger = logging.getLogger('kodiak.try')
logger.info('before anybody asked')
context.Context(user_id='u1', project_id='p1', domain_id='d1', request_id='req-12345678', global_request_id='req-87654321',
                overwrite=True)
logger.info('asked with %s', {'password': 'hunter2', 'X-Auth-Token': 'gAAAAA'})
logger.warning('plain 100%')
logger.debug('not shown')
try:
    1 / 0
except ZeroDivisionError:
    logger.exception('it broke')
"""


@pytest.fixture
def lines(tmp_path):
    def run(*arguments):
        path = tmp_path / 'log_me.py'
        path.write_text(LOGGING)
        return subprocess.run([sys.executable, str(path), *arguments], check=True, capture_output=True, text=True).stderr
    return run


def test_text_lines_have_the_ids_and_no_secrets(lines):
    out = lines()
    assert 'INFO kodiak.try [-] before anybody asked' in out
    assert '[req-87654321 req-12345678 u1 p1 d1] asked with' in out
    assert 'hunter2' not in out
    assert 'gAAAAA' not in out
    assert 'plain 100%' in out
    assert 'not shown' not in out
    assert 'ZeroDivisionError: division by zero' in out


REQUESTS = """
import sys
from kodiak.common import config, context, log, wsgi
conf = config.load('try', args=sys.argv[1:], files=[])
log.setup(conf, 'kodiak-try')


def application(environ, start_response):
    if environ['PATH_INFO'] != '/nobody':
        environ.update(HTTP_X_USER_ID='u1', HTTP_X_PROJECT_ID='p1')
        context.from_environ(environ)
    start_response('200 OK', [])
    return []


for path in ('/nobody', '/somebody', '/nobody'):
    wsgi.Front(application, 'try')({'REQUEST_METHOD': 'GET', 'PATH_INFO': path}, lambda *args: None)
"""


def test_a_request_is_logged_under_its_own_ids(tmp_path):
    (tmp_path / 'ask.py').write_text(REQUESTS)
    out = subprocess.run([sys.executable, str(tmp_path / 'ask.py')], check=True, capture_output=True, text=True).stderr
    first, second, third = out.splitlines()
    assert first.split('] ')[0].endswith(' - - -') and third.split('] ')[0].endswith(' - - -')
    assert ' u1 p1 ' in second
    assert len({line.split('[')[1].split()[1] for line in (first, second, third)}) == 3


def test_debug_and_a_file(lines, tmp_path):
    assert lines('--debug', '--log-file', str(tmp_path / 'x.log')) == ''
    assert 'not shown' in (tmp_path / 'x.log').read_text()


def test_json_lines(lines, tmp_path):
    (tmp_path / 'try.conf').write_text('[DEFAULT]\nlog_format = json\n')
    found = [json.loads(line) for line in lines('--config-file', str(tmp_path / 'try.conf')).splitlines()]
    asked = next(line for line in found if line['message'].startswith('asked'))
    assert asked['context']['request_id'] == 'req-12345678'
    assert asked['context']['global_request_id'] == 'req-87654321'
    assert 'hunter2' not in asked['message']
    broken = next(line for line in found if line['message'] == 'it broke')
    assert 'ZeroDivisionError' in str(broken['traceback'])


@pytest.mark.parametrize('said,secret', [
    ("{'password': 'hunter2'}", 'hunter2'), ('rabbit://kodiak:hunter2@127.0.0.1:5672/kodiak', 'hunter2'),
    ('mysql+pymysql://u:hunter2@h/db does not answer', 'hunter2'), ('X-Auth-Token: gAAAAhunter2', 'hunter2'),
    ("{'X-Service-Token': 'hunter2'}", 'hunter2'), ('Authorization: Basic aHVudGVyMg==', 'aHVudGVyMg'),
    ('the token kd1.eyJhbGci.hunter2-x is over', 'hunter2'), ('gAAAAABhunter2hunter2hunter2', 'hunter2')])
@pytest.mark.parametrize('form', ['text', 'json'])
def test_no_secret_is_in_a_message_or_in_an_exception(said, secret, form, caplog):
    import io

    from oslo_log import formatters

    from kodiak.common import log
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatters.JSONFormatter() if form == 'json' else logging.Formatter('%(message)s'))
    handler.addFilter(log.Masked())
    logger = logging.getLogger('kodiak.secrets')
    logger.propagate = False
    logger.addHandler(handler)
    try:
        logger.warning('It said %s', said)
        try:
            try:
                raise KeyError(said)
            except KeyError as error:
                raise ValueError('while it was looked up') from error
        except ValueError:
            logger.exception('It broke')
    finally:
        logger.removeHandler(handler)
    written = stream.getvalue()
    assert secret not in written and '***' in written
    assert 'KeyError' in written and 'ValueError: while it was looked up' in written and 'test_metrics_log.py' in written


def test_the_filter_leaves_what_it_need_not_touch():
    from kodiak.common import log
    record = logging.LogRecord('x', logging.INFO, 'f', 1, 'sum %d', (7,), None)
    assert log.Masked().filter(record)
    assert (record.msg, record.args) == ('sum %d', (7,))


def test_invented_methods_are_one_series():
    from kodiak.common import wsgi
    front = wsgi.Front(lambda environ, start_response: start_response('405 X', []) or [], 'invented')
    for method in ('GET', 'XYZZY', 'PLUGH'):
        front({'REQUEST_METHOD': method, 'PATH_INFO': '/'}, lambda *args: None)
    text = metrics.render().decode()
    assert 'kodiak_http_request_seconds_count{code="405",method="other",route="-",service="invented"} 2.0' in text
    assert 'XYZZY' not in text
