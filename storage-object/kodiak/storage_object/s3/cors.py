"""Which pages of other sites may use a bucket: its CORS configuration."""
from kodiak.common.numbers import natural

from ..proxy.http import Response
from .errors import S3Error
from .xml import parse_xml

METHODS = ('GET', 'PUT', 'POST', 'DELETE', 'HEAD')


def parse(data):
    """The rules of a ``CORSConfiguration``: dicts of ``origins``, ``methods``, ``headers``, ``exposed``, ``age``."""
    root = parse_xml(data, 'CORSConfiguration')
    rules = []
    for element in root.findall('CORSRule'):
        def texts(name, element=element):
            return [e.text or '' for e in element.findall(name)]
        rule = {'origins': texts('AllowedOrigin'), 'methods': texts('AllowedMethod'), 'headers': texts('AllowedHeader'),
                'exposed': texts('ExposeHeader'), 'age': element.findtext('MaxAgeSeconds')}
        if not rule['origins'] or not rule['methods'] or (rule['age'] is not None and natural(rule['age']) is None):
            raise S3Error('MalformedXML')
        for method in rule['methods']:
            if method not in METHODS:
                raise S3Error('InvalidRequest', f'Found unsupported HTTP method in CORS config. Unsupported method is {method}')
        for word in rule['origins'] + rule['headers']:
            if word.count('*') > 1:
                raise S3Error('InvalidRequest', f'AllowedOrigin or AllowedHeader "{word}" can not have more than one wildcard.')
        rules.append(rule)
    if not rules or len(rules) > 100:
        raise S3Error('MalformedXML')
    return rules


def _fits(text, pattern):
    head, star, tail = pattern.partition('*')
    if not star:
        return text == pattern
    return text.startswith(head) and text.endswith(tail) and len(text) >= len(head) + len(tail)


def _chosen(rules, origin, method, headers=()):
    for rule in rules or ():
        if method in rule['methods'] and any(_fits(origin, pattern) for pattern in rule['origins']) and all(
                any(_fits(header, pattern.lower()) for pattern in rule['headers']) for header in headers):
            return rule
    return None


def _marked(answer, rule, origin):
    everyone = '*' in rule['origins']
    headers = answer.headers
    headers['Access-Control-Allow-Origin'] = '*' if everyone else origin
    headers['Access-Control-Allow-Methods'] = ', '.join(rule['methods'])
    if not everyone:
        headers['Access-Control-Allow-Credentials'] = 'true'
    if rule['exposed']:
        headers['Access-Control-Expose-Headers'] = ', '.join(rule['exposed'])
    if rule['age'] is not None:
        headers['Access-Control-Max-Age'] = rule['age']
    headers['Vary'] = 'Origin, Access-Control-Request-Headers, Access-Control-Request-Method'
    return answer


def preflight(request, rules):
    """The answer of an OPTIONS request."""
    get = request.headers.get
    for name in ('Origin', 'Access-Control-Request-Method'):
        if not get(name):
            raise S3Error('BadRequest', f'Insufficient information. {name} request header needed.')
    asked = [word.strip().lower() for word in (get('Access-Control-Request-Headers') or '').split(',') if word.strip()]
    rule = _chosen(rules, get('Origin') or '', get('Access-Control-Request-Method'), asked)
    if rule is None:
        raise S3Error('AccessForbidden')
    answer = _marked(Response(200), rule, get('Origin'))
    if asked:
        answer.headers['Access-Control-Allow-Headers'] = ', '.join(asked)
    return answer


def mark(request, rules, answer):
    """Let a page read an answer, if a rule says so."""
    origin = request.headers.get('Origin')
    rule = _chosen(rules, origin, request.headers.get('Access-Control-Request-Method') or request.method)
    return answer if rule is None else _marked(answer, rule, origin)
