"""Signatures of EC2 and S3 requests."""
import base64
import datetime
import hashlib
import hmac
import re
import time
import urllib.parse

from kodiak.common import errors

#: seconds after it was signed that an EC2 request can be used to log in; Keystone's default
LIFE = 900


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


def expired(request):
    """True if an EC2 request says that it was signed more than ``LIFE`` ago: whoever recorded it must not use it for ever.

    Where it says nothing of the kind, whoever signed it wanted it so.

    :raises Unauthorized: if its time cannot be read.
    """
    text = _signed_at(request)
    if not text:
        return False
    for form in ('%Y%m%dT%H%M%SZ', '%Y-%m-%dT%H:%M:%SZ', '%Y-%m-%dT%H:%M:%S', '%Y-%m-%dT%H:%M:%S.%fZ'):
        try:
            signed = datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC).timestamp()
            break
        except ValueError:
            continue
    else:
        raise errors.Unauthorized('The time at which the request was signed cannot be read.')
    return time.time() > signed + LIFE


def _signed_at(request):
    # What the signature covers, and nothing that could be put beside it.
    params, headers = request.get('params') or {}, _headers(request)
    return str((_stamp(params, headers) if _is_version4(params, headers) else params.get('Timestamp')) or '')


def _headers(request):
    return {name.lower(): value for name, value in (request.get('headers') or {}).items()}


def _is_version4(params, headers):
    return (str(headers.get('authorization', '')).startswith('AWS4-HMAC-SHA256')
            or params.get('X-Amz-Algorithm') == 'AWS4-HMAC-SHA256')


def _stamp(params, headers):
    return params.get('X-Amz-Date') or headers.get('x-amz-date') or headers.get('date') or ''


def _hosts(host):
    # Some clients leave the port out of what they sign.
    return [host, host.rsplit(':', 1)[0]] if re.search(r':\d+$', host) else [host]


def _signature(secret, request, params):
    params.pop('Signature', None)
    headers = _headers(request)
    version = str(params.get('SignatureVersion', ''))
    if _is_version4(params, headers):
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
    stamp = _stamp(params, headers)
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
