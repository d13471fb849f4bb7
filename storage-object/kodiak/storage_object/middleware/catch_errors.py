"""The outermost filter: transaction ids, a clean 500 for what nobody caught, and no header of ours from or to a client."""
import logging
import re
import time
import uuid

from gunicorn.http.errors import ParseException

from kodiak.common.numbers import natural

from ..proxy.http import Fault, Filter, error, quote

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger('kodiak.object.access')
# What a line of the access log can tell.
FIELDS = ('remote_addr', 'method', 'path', 'query', 'status', 'length', 'received', 'seconds', 'trans_id', 'user', 'account',
          'container', 'object', 'referer', 'user_agent', 'host', 'time')
FORMAT = '{remote_addr} {method} {path}{query} {status} {length} {seconds} {trans_id}'
INWARD = re.compile(r'HTTP_(X_(ACCOUNT|CONTAINER|OBJECT)_(TRANSIENT_)?SYSMETA_|X_BACKEND|X_TIMESTAMP$)')
OUTWARD = re.compile(r'X-((Account|Container|Object)-(Transient-)?Sysmeta-|Backend)')


class CatchErrors(Filter):
    """See the module."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.suffix = self.conf.get('trans_id_suffix', '')
        self.format = self.conf.get('log_format', FORMAT)
        self.format.format_map(dict.fromkeys(FIELDS, '-'))      # (a field that there is not is an error at the start)

    def __call__(self, environ, start_response):
        started = time.time()
        if 'HTTP_X_CONTAINER_SYNC_AUTH' in environ or 'HTTP_X_CONTAINER_SYNC_KEY' in environ:
            environ['kodiak.sync_timestamp'] = environ.get('HTTP_X_TIMESTAMP')
        for name in [name for name in environ if name.startswith('HTTP_X_') and INWARD.match(name)]:
            del environ[name]
        trans = environ['kodiak.trans_id'] = environ['HTTP_X_TRANS_ID'] = (
            f'tx{uuid.uuid4().hex[:21]}-{int(started):010x}{quote(self.suffix + environ.get("HTTP_X_TRANS_ID_EXTRA", "")[:32])}')
        from ..proxy.http import Request
        request = Request.of(environ)
        method, asked = request.method, (environ.get('PATH_INFO', '').encode('latin-1').decode('utf-8', 'replace'),
                                         environ.get('QUERY_STRING', ''))
        try:
            answer = self._answer(request, method)
        except Fault as fault:
            answer = fault.response
        except UnicodeError:
            answer = error(412, 'Invalid UTF8 or contains NULL')
        except ParseException as problem:       # (of chunks, when the body is read)
            answer = error(400, str(problem))
        except Exception:
            LOG.exception('%s %s failed (%s)', method, environ.get('PATH_INFO'), trans)
            answer = error(500)
        headers = answer.headers
        for name in [name for name in headers if name.startswith('X-') and OUTWARD.match(name)]:
            del headers[name]
        headers['X-Trans-Id'] = headers['X-Openstack-Request-Id'] = trans
        if answer.status >= 400 and method in ('PUT', 'POST') and self._unread(environ):
            headers['Connection'] = 'close'
        if ACCESS.isEnabledFor(logging.INFO):
            self._log(environ, method, answer, started, asked, trans)
        environ['REQUEST_METHOD'] = method
        return answer(environ, start_response)

    def _log(self, environ, method, answer, started, asked, trans):
        path, query = asked
        names = [quote(part) for part in path.split('/', 4)[2:]] if path.startswith('/v1') else []
        get = environ.get

        def plain(text):
            return quote(text or '-', safe='/:;,()[]@+ =')
        facts = dict(zip(('account', 'container', 'object'), (*names, '-', '-', '-'), strict=False))
        identity = get('kodiak.identity') or {}
        facts.update(
            remote_addr=get('REMOTE_ADDR', '-'), method=method, path=quote(path), status=answer.status,
            # A signature is as good as a password.
            query='?' + query if query and 'sig' not in query.lower() else '', length=answer.headers.get('Content-Length', '-'),
            received=get('CONTENT_LENGTH') or '-', seconds=f'{time.time() - started:.4f}', trans_id=trans,
            user=plain(identity.get('user')), referer=plain(get('HTTP_REFERER')), user_agent=plain(get('HTTP_USER_AGENT')),
            host=plain(get('HTTP_HOST')), time=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(started)))
        ACCESS.info('%s', self.format.format_map(facts))

    def _answer(self, request, method):
        if method not in ('GET', 'HEAD') and 'CONTENT_LENGTH' in request.environ:
            request.content_length  # noqa: B018 (400 for one that is no number)
        return self.next(request)

    @staticmethod
    def _unread(environ):
        length = environ.get('CONTENT_LENGTH') or ''
        return environ.get('HTTP_TRANSFER_ENCODING') or (natural(length) or 0) > 65536
