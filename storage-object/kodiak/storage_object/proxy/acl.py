"""Access control lists of containers: ``.r:*,.rlistings,account:user,...``."""
import urllib.parse

from .http import Fault


def clean(name, value):
    """The list in its normal form; 400 if it is none. ``name``: the header."""
    words = []
    for word in value.split(','):
        word = word.strip()
        if not word:
            continue
        if ':' not in word and not word.startswith('.'):
            words.append(word)
            continue
        first, colon, second = word.partition(':')
        first, second = first.strip(), second.strip()
        if not first.startswith('.'):
            words.append(f'{first}:{second}')
        elif first in ('.r', '.ref', '.referer', '.referrer'):
            if 'write' in name.lower():
                raise Fault(400, f'Referrers not allowed in write ACL: {word!r}')
            negate = second.startswith('-')
            if negate:
                second = second[1:].strip()
            if second not in ('*', '') and second.startswith('*'):
                second = second[1:].strip()
            if not second or second == '.':
                raise Fault(400, f'No host/domain value after referrer designation in ACL: {word!r}')
            words.append(f'.r:{"-" if negate else ""}{second}')
        elif colon or first not in ('.rlistings', '.rlisting'):
            raise Fault(400, f'Unknown designator {first!r} in ACL: {word!r}')
        else:
            words.append('.rlistings')
    return ','.join(words)


def parse(text):
    """``(referrers, groups)`` of a list."""
    referrers, groups = [], []
    for word in (text or '').split(','):
        if word.startswith('.r:'):
            referrers.append(word[3:])
        elif word:
            groups.append(word)
    return referrers, groups


def referrer_allowed(referrer, patterns):
    """Whether the page that a request comes from may read."""
    allowed = False
    if patterns:
        host = (urllib.parse.urlsplit(referrer or '').hostname or 'unknown').lower()
        for pattern in patterns:
            negated = pattern.startswith('-')
            pattern = pattern[1:] if negated else pattern
            if pattern in ('*', host) or (pattern.startswith('.') and host.endswith(pattern)):
                allowed = not negated
    return allowed
