"""Signatures of EC2 and S3 requests."""
import base64
import hashlib
import hmac
import re
import urllib.parse

from kodiak.common import errors


def valid(secret, request):
    """True if an EC2 request is signed with ``secret``.

    :param request: ``signature``, ``host``, ``verb``, ``path``, ``params``, and for version 4 ``headers`` and ``body_hash``.
    """
    params = dict(request.get('params') or {})
    given = request.get('signature') or ''
    for host in _hosts(request.get('host') or ''):
        found = _signature(secret, {**request, 'host': host}, dict(params))
        if found is not None and hmac.compare_digest(found, given):
            return True
    return False


def _hosts(host):
    # Some clients leave the port out of what they sign.
    return [host, host.rsplit(':', 1)[0]] if re.search(r':\d+$', host) else [host]


def _signature(secret, request, params):
    params.pop('Signature', None)
    headers = {name.lower(): value for name, value in (request.get('headers') or {}).items()}
    version = str(params.get('SignatureVersion', ''))
    if headers.get('authorization', '').startswith('AWS4-HMAC-SHA256') or params.get('X-Amz-Algorithm') == 'AWS4-HMAC-SHA256':
        return _version4(secret, request, params, headers)
    if version == '2':
        return _version2(secret, request, params)
    if version == '1':
        text = ''.join(f'{name}{params[name]}' for name in sorted(params, key=str.lower))
        return _mac(secret, text, hashlib.sha1)
    if version == '0':
        return _mac(secret, f"{params.get('Action', '')}{params.get('Timestamp', '')}", hashlib.sha1)
    return None


def _mac(secret, text, kind):
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), kind).digest()).decode()


def _quote(text, safe='-_.~'):
    return urllib.parse.quote(str(text), safe=safe)


def _query(params):
    return '&'.join(f'{_quote(name)}={_quote(params[name])}' for name in sorted(params))


def _version2(secret, request, params):
    kind = hashlib.sha1 if params.get('SignatureMethod') == 'HmacSHA1' else hashlib.sha256
    text = f"{request.get('verb', '')}\n{request['host'].lower()}\n{request.get('path', '')}\n{_query(params)}"
    return _mac(secret, text, kind)


def _version4(secret, request, params, headers):
    fields = dict(re.findall(r'(\w+)=([^,\s]+)', headers.get('authorization', '')))
    credential = fields.get('Credential') or params.get('X-Amz-Credential') or ''
    parts = credential.split('/')
    signed = fields.get('SignedHeaders') or params.get('X-Amz-SignedHeaders') or ''
    if len(parts) < 5 or not signed:
        return None
    date, region, service = parts[1:4]
    params.pop('X-Amz-Signature', None)
    stamp = params.get('X-Amz-Date') or headers.get('x-amz-date') or headers.get('date') or ''
    verb = request.get('verb', '')
    body = request.get('body_hash') or headers.get('x-amz-content-sha256') or ''
    lines = ''
    for name in signed.split(';'):
        value = request['host'] if name == 'host' else headers.get(name, '')
        lines += f'{name}:{str(value).strip()}\n'
    query = '' if verb.upper() == 'POST' and 'X-Amz-Credential' not in params else _query(params)
    canonical = '\n'.join((verb, request.get('path', ''), query, lines, signed, body))
    text = '\n'.join(('AWS4-HMAC-SHA256', stamp, '/'.join(parts[1:]), hashlib.sha256(canonical.encode()).hexdigest()))
    key = f'AWS4{secret}'.encode()
    for part in (date, region, service, 'aws4_request'):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def valid_s3(secret, request):
    """True if an S3 request (``token``: what was signed, in base64; ``signature``) is signed with ``secret``."""
    try:
        text = base64.urlsafe_b64decode(str(request.get('token') or ''))
    except ValueError:
        raise errors.BadRequest('Invalid input for field/attribute credentials.token: it must be base64.') from None
    given = str(request.get('signature') or '')
    if text.startswith(b'AWS4-HMAC-SHA256'):
        lines = text.decode(errors='replace').split('\n')
        scope = lines[2].split('/') if len(lines) > 2 else []
        if len(scope) != 4:
            return False
        key = f'AWS4{secret}'.encode()
        for part in scope:
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.compare_digest(hmac.new(key, text, hashlib.sha256).hexdigest(), given)
    found = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha1).digest()).decode().strip()
    return hmac.compare_digest(found, given)
