"""Bucket policies: documents of statements that allow or deny, as JSON."""
import fnmatch
import ipaddress
import re
import time

import orjson

from kodiak.common.numbers import natural

from . import acl, tagging
from .errors import S3Error
from .xml import moment_of

LIMIT = 20480
ALL = frozenset(('*',))
KEYS = {'Version', 'Id', 'Statement'}
STATEMENT = {'Sid', 'Effect', 'Principal', 'NotPrincipal', 'Action', 'NotAction', 'Resource', 'NotResource', 'Condition'}


def _words(value, what):
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise S3Error('MalformedPolicy', f'Invalid {what}')
    return words


def like(text, pattern):
    """Whether a text is what a pattern with ``*`` and ``?`` says."""
    expression = ''.join('.*' if c == '*' else '.' if c == '?' else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None


def _inside(text, net):
    try:
        return ipaddress.ip_address(text) in ipaddress.ip_network(net, strict=False)
    except ValueError:
        return False


def _ordered(read):
    def both(test):
        def compare(text, wanted):
            left, right = read(text), read(wanted)
            return left is not None and right is not None and test(left, right)
        return compare
    return {'Equals': both(lambda a, b: a == b), 'NotEquals': both(lambda a, b: a != b), 'LessThan': both(lambda a, b: a < b),
            'LessThanEquals': both(lambda a, b: a <= b), 'GreaterThan': both(lambda a, b: a > b),
            'GreaterThanEquals': both(lambda a, b: a >= b)}


# How a request's value is compared with one of a condition's. Those of NEGATIVE must hold for all of the condition's values.
OPERATORS = {
    'StringEquals': lambda a, b: a == b, 'StringNotEquals': lambda a, b: a != b,
    'StringEqualsIgnoreCase': lambda a, b: a.lower() == b.lower(), 'StringNotEqualsIgnoreCase': lambda a, b: a.lower() != b.lower(),
    'StringLike': like, 'StringNotLike': lambda a, b: not like(a, b), 'ArnEquals': like, 'ArnLike': like,
    'ArnNotEquals': lambda a, b: not like(a, b), 'ArnNotLike': lambda a, b: not like(a, b),
    'Bool': lambda a, b: a.lower() == b.lower(), 'IpAddress': _inside, 'NotIpAddress': lambda a, b: not _inside(a, b),
    **{f'Numeric{name}': test for name, test in _ordered(_number).items()},
    **{f'Date{name}': test for name, test in _ordered(lambda text: natural(text) or moment_of(text)).items()},
}
NEGATIVE = {name for name in OPERATORS if 'Not' in name}


class Policy:
    """One bucket's policy.

    :param data: its JSON. Raises MalformedPolicy for what is none.
    """

    def __init__(self, data, bucket):
        if len(data) > LIMIT:
            raise S3Error('MalformedPolicy', 'Policies must not be longer than 20 KB')
        try:
            document = orjson.loads(data)
        except ValueError:
            raise S3Error('MalformedPolicy', "Policies must be valid JSON and the first byte must be '{'") from None
        if not isinstance(document, dict) or set(document) - KEYS:
            raise S3Error('MalformedPolicy', 'Unknown field in the policy')
        if document.get('Version', '2008-10-17') not in ('2008-10-17', '2012-10-17'):
            raise S3Error('MalformedPolicy', 'The policy must contain a valid version string')
        statements = document.get('Statement')
        statements = [statements] if isinstance(statements, dict) else statements
        if not isinstance(statements, list) or not statements:
            raise S3Error('MalformedPolicy', 'Missing required field Statement')
        self.statements = [_Statement(statement, bucket) for statement in statements]

    def verdict(self, who, action, resource, facts, by_name=False):
        """``allow``, ``deny`` or None.

        :param who: names of who asks (a set; empty for nobody). :param action: ``s3:GetObject``.
        :param resource: ``arn:aws:s3:::bucket/key``. :param facts: condition key (lower case) to value, or a list of them.
        :param by_name: what is allowed to everybody is not enough: one of ``who`` must be named.
        """
        verdict = None
        for statement in self.statements:
            if by_name and statement.effect == 'Allow' and not statement.principals & who:
                continue
            if statement.covers(who, action, resource, facts):
                if statement.effect == 'Deny':
                    return 'deny'
                verdict = 'allow'
        return verdict

    def asks(self, prefix):
        """Whether a condition asks for a key that begins so."""
        return any(key.startswith(prefix) for s in self.statements for _, _, _, key, _ in s.conditions)

    @property
    def public(self):
        """Whether somebody unknown is allowed something, whatever address they come from."""
        return any(s.effect == 'Allow' and s.principals == ALL and not s.negated_principal and not (
            {key for _, _, _, key, _ in s.conditions} & {'aws:sourceip', 'aws:username', 'aws:userid', 'aws:principalarn'})
            for s in self.statements)


class _Statement:
    def __init__(self, data, bucket):
        if not isinstance(data, dict) or set(data) - STATEMENT:
            raise S3Error('MalformedPolicy', 'Unknown field in a statement')
        self.effect = data.get('Effect')
        if self.effect not in ('Allow', 'Deny'):
            raise S3Error('MalformedPolicy', f'Invalid effect: {self.effect}')
        self.principals, self.negated_principal = self._either(data, 'Principal', self._principals)
        if self.negated_principal and self.effect == 'Allow':
            raise S3Error('MalformedPolicy', 'Allow with NotPrincipal is not allowed')
        self.actions, self.negated_action = self._either(data, 'Action', lambda v: [w.lower() for w in _words(v, 'Action')])
        self.resources, self.negated_resource = self._either(data, 'Resource', lambda v: _words(v, 'Resource'))
        if not all(action == '*' or action.startswith('s3:') for action in self.actions):
            raise S3Error('MalformedPolicy', 'Policy has invalid action')
        for resource in self.resources:
            name = resource.removeprefix('arn:aws:s3:::').partition('/')[0]
            if not resource.startswith('arn:aws:s3:::') or not like(bucket, name):
                raise S3Error('MalformedPolicy', 'Policy has invalid resource')
        self.conditions = list(self._conditions(data.get('Condition', {})))

    @staticmethod
    def _either(data, name, read):
        if (name in data) == ('Not' + name in data):
            raise S3Error('MalformedPolicy', f'A statement has either {name} or Not{name}')
        return (read(data[name]), False) if name in data else (read(data['Not' + name]), True)

    @staticmethod
    def _principals(value):
        if value == '*':
            return ALL
        if not isinstance(value, dict) or not value or set(value) - {'AWS', 'CanonicalUser', 'Service', 'Federated'}:
            raise S3Error('MalformedPolicy', 'Invalid principal in policy')
        # (what is not a user's name, such as a service's, is that of nobody who asks)
        return frozenset(word if kind in ('AWS', 'CanonicalUser') else f'{kind}:{word}'
                         for kind, words in value.items() for word in _words(words, 'Principal'))

    @staticmethod
    def _conditions(block):
        if not isinstance(block, dict):
            raise S3Error('MalformedPolicy', 'Invalid Condition')
        for name, keys in block.items():
            plain = name.removesuffix('IfExists')
            set_of, _, plain = plain.rpartition(':')
            if (plain not in OPERATORS and plain != 'Null') or set_of not in ('', 'ForAllValues', 'ForAnyValue') or not isinstance(
                    keys, dict):
                raise S3Error('MalformedPolicy', f'Invalid Condition type : {name}')
            for key, values in keys.items():
                values = values if isinstance(values, list) else [values]
                words = [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
                yield plain, set_of, name.endswith('IfExists'), key.lower(), words

    def covers(self, who, action, resource, facts):
        """Whether it speaks of such a request."""
        if bool(self.principals & (who | ALL)) == self.negated_principal:
            return False
        if any(fnmatch.fnmatchcase(action.lower(), pattern) for pattern in self.actions) == self.negated_action:
            return False
        if any(like(resource, pattern) for pattern in self.resources) == self.negated_resource:
            return False
        return all(self._holds(condition, facts) for condition in self.conditions)

    @staticmethod
    def _holds(condition, facts):
        operator, set_of, if_exists, key, wanted = condition
        known = facts.get(key)
        if operator == 'Null':
            return all((known is None) == (word == 'true') for word in wanted)
        negative = operator in NEGATIVE
        if known is None:
            return if_exists or negative or set_of == 'ForAllValues'
        test = OPERATORS[operator]
        several = known if isinstance(known, list) else [known]
        combine = all if negative else any
        found = [combine(test(value, word) for word in wanted) for value in several]
        return all(found) if set_of == 'ForAllValues' or negative else any(found)


def facts_of(call):
    """What conditions can ask of a request."""
    request, query = call.request, call.query
    headers = request.headers
    facts = {'aws:sourceip': request.environ.get('REMOTE_ADDR', ''), 'aws:epochtime': str(int(time.time())),
             'aws:currenttime': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
             'aws:securetransport': str(request.environ.get('wsgi.url_scheme') == 'https').lower()}
    for key, value in (('aws:referer', headers.get('Referer')), ('aws:useragent', headers.get('User-Agent')),
                       ('aws:username', call.user_name), ('s3:prefix', query.get('prefix')),
                       ('s3:delimiter', query.get('delimiter')), ('s3:max-keys', query.get('max-keys')),
                       ('s3:versionid', query.get('versionId')),
                       ('s3:x-amz-acl', headers.get('X-Amz-Acl')), ('s3:x-amz-copy-source', headers.get('X-Amz-Copy-Source')),
                       ('s3:x-amz-metadata-directive', headers.get('X-Amz-Metadata-Directive')),
                       ('s3:x-amz-server-side-encryption', headers.get('X-Amz-Server-Side-Encryption')),
                       ('s3:x-amz-server-side-encryption-aws-kms-key-id',
                        headers.get('X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id')),
                       ('s3:x-amz-server-side-encryption-customer-algorithm',
                        headers.get('X-Amz-Server-Side-Encryption-Customer-Algorithm')),
                       ('s3:x-amz-storage-class', headers.get('X-Amz-Storage-Class')),
                       ('s3:object-lock-mode', headers.get('X-Amz-Object-Lock-Mode')),
                       ('s3:object-lock-legal-hold', headers.get('X-Amz-Object-Lock-Legal-Hold'))):
        if value is not None:
            facts[key] = value
    for name in acl.HEADERS:
        if headers.get(name):
            facts['s3:' + name.lower()] = headers.get(name)
    if headers.get('X-Amz-Tagging'):
        pairs = tagging.of_header(headers.get('X-Amz-Tagging'))
        facts.update((f's3:requestobjecttag/{key.lower()}', value) for key, value in pairs)
        facts['s3:requestobjecttagkeys'] = [key for key, _ in pairs]
    if call.signature is not None:
        facts['s3:signatureversion'] = 'AWS4-HMAC-SHA256' if call.signature.version == 4 else 'AWS'
        facts['s3:authtype'] = 'REST-QUERY-STRING' if call.signature.presigned else 'REST-HEADER'
    return facts
