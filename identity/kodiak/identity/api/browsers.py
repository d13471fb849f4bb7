"""What logging in with a browser has in common, whatever the identity provider speaks: our cookie, the page at the end."""
import html
import time

import orjson
from cryptography import fernet

from kodiak.common import api, errors

from .. import core as cores

COOKIE = 'kodiak_sso'
LIFE = 600
PAGE = """<!DOCTYPE html>
<html><head><title>Logging in</title></head><body>
<form id="sso" action="{action}" method="post">{fields}
<noscript><button type="submit">Continue</button></noscript></form>
<script>document.getElementById('sso').submit()</script></body></html>
"""


def origin(req):
    """The dashboard that wants to know who somebody is; 401 if it isn't a trusted one."""
    found = req.http.args.get('origin')
    if found is None:
        raise errors.BadRequest('The parameter origin is missing.')
    if found not in cores.of(req).conf.federation.trusted_dashboard:
        raise errors.Unauthorized(f'{found} is not a trusted dashboard host.')
    return found


def send(req, url, kept, at):
    """Send the browser to its identity provider.

    :param kept: what must be remembered until it comes back. :param at: the provider and the protocol, a list.
    """
    value = seal(req, kept, at)
    return api.Response(None, status=302, headers={'Location': url, 'Cache-Control': 'no-store',
                                                   'Set-Cookie': _cookie(req, value, LIFE)})


def seal(req, kept, at):
    """What must be remembered, as a text that only we can make and read."""
    return cores.of(req).crypt.encrypt(orjson.dumps({**kept, 'until': time.time() + LIFE, 'at': at}).decode())


def unseal(req, text, at):
    """What was sealed for ``at``; None if it is none of that, or too old."""
    try:
        kept = orjson.loads(cores.of(req).crypt.decrypt(text))
    except (fernet.InvalidToken, ValueError):
        return None
    return kept if kept['until'] > time.time() and kept['at'] == at else None


def kept(req, at):
    """What was remembered of the browser that comes back; None if it isn't the one that was sent, or it took too long."""
    return unseal(req, req.http.cookies.get(COOKIE, ''), at)


def stranger():
    """The 401 for a browser of which nothing is remembered."""
    return errors.Unauthorized('This is not the browser that began to log in here, or it took too long. Try again.')


def _cookie(req, value, life):
    secure = '; Secure' if req.base_url.startswith('https:') else ''
    return f'{COOKIE}={value}; Path=/v3/auth/OS-FEDERATION; Max-Age={life}; HttpOnly; SameSite=Lax{secure}'


def page(action, fields, headers=()):
    """A page that posts ``fields`` to ``action`` by itself."""
    inputs = ''.join(f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
                     for name, value in fields.items())
    text = PAGE.format(action=html.escape(action, quote=True), fields=inputs)
    return api.Response(text, status=200, media_type='text/html; charset=utf-8', headers={
        'Cache-Control': 'no-store', 'X-Frame-Options': 'DENY', 'Referrer-Policy': 'no-referrer', **dict(headers)})


def finish(req, origin, token):
    """Hand a token over to the dashboard."""
    return page(origin, {'token': token}, {'Set-Cookie': _cookie(req, '', 0)})
