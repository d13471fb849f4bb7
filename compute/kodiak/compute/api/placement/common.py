"""What Placement's resources share: answers with times, rules, and parsing of query parameters."""
import email.utils
import re
import uuid

from kodiak.common import api, db, errors, policy
from kodiak.common.api import schema

#: Scope is what the token is for: a system administrator manages no resources of Placement, as in the original.
SERVICE = f'({policy.SERVICE}) and scope:project'
UUID = {'type': 'string', 'format': 'uuid'}
COUNT = {'type': 'integer', 'minimum': 0, 'maximum': 0x7FFFFFFF}
GENERATION = {'type': 'integer'}
CLASS_NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255, 'pattern': '^[A-Z0-9_]+$'}
SUFFIX = re.compile(r'^(resources|required|member_of|in_tree)([0-9]+|[a-zA-Z0-9_-]{1,64})?$')


def stamped(req, body, changed=None, status=None, headers=()):
    """A response with the ``Last-Modified`` and ``Cache-Control`` headers that microversion 1.15 brought."""
    headers = list(headers)
    if req.at_least(1, 15):
        moment = changed or db.utcnow()
        headers += [('Last-Modified', email.utils.format_datetime(moment.replace(microsecond=0)).replace('-0000', 'GMT')),
                    ('Cache-Control', 'no-cache')]
    return api.Response(body, status, headers)


def href(req, path):
    """The path of a resource below the API's mount point."""
    return req.http.environ.get('SCRIPT_NAME', '') + path


def resources_of(text):
    """``{class: amount}`` of ``VCPU:1,MEMORY_MB:512``."""
    found = {}
    for part in text.split(','):
        name, colon, amount = part.strip().partition(':')
        if not colon or not name or not schema.natural(amount):
            raise errors.BadRequest('Badly formed resources parameter. Expected resources query string parameter in form: '
                                    f'?resources=VCPU:2,MEMORY_MB:1024. Got: {text}.')
        found[name] = int(amount)
    return found


def traits_of(texts, version):
    """``(required: list of sets, forbidden: set)`` of ``required`` parameters."""
    if version < (1, 39):
        texts = texts[-1:]
    required, forbidden = [], set()
    for text in (text.strip() for text in texts):
        if text.startswith('in:') and version >= (1, 39):
            names = text[3:].split(',')
            if any(not name or name.startswith('!') for name in names):
                raise errors.BadRequest(f"Invalid query string parameters: the value of 'required' is malformed: {text}")
            required.append(set(names))
            continue
        for name in text.split(','):
            if name.startswith('!') and version >= (1, 22):
                forbidden.add(name[1:])
            else:
                required.append({name})
            if not name.lstrip('!') or (name.startswith('!') and version < (1, 22)):
                form = 'HW_CPU_X86_VMX,CUSTOM_MAGIC' if version < (1, 22) else 'HW_CPU_X86_VMX,!CUSTOM_MAGIC'
                raise errors.BadRequest("Invalid query string parameters: Expected 'required' parameter value of the form: "
                                        f'{form}. Got: {text}')
    plain = {name for names in required if len(names) == 1 for name in names}
    if plain & forbidden:
        raise errors.BadRequest(f'Conflicting required and forbidden traits found in the following traits keys: required: '
                                f'({", ".join(sorted(plain & forbidden))})')
    return required, forbidden


def aggregates_of(texts, version):
    """``(member_of: list of sets, forbidden: set)`` of ``member_of`` parameters."""
    if len(texts) > 1 and version < (1, 24):
        raise errors.BadRequest('Multiple member_of parameters are not supported')
    members, forbidden = [], set()
    for text in texts:
        negative = text.startswith('!')
        if negative and version < (1, 32):
            raise errors.BadRequest('Forbidden member_of parameters are not supported in the specified microversion')
        value = text[1:] if negative else text
        several = value.startswith('in:')
        uuids = value[3:].split(',') if several else [value]
        for found in uuids:
            if not is_uuid(found):
                raise errors.BadRequest(f"Invalid query string parameters: Expected 'member_of' parameter to contain valid "
                                        f"UUID(s). Got: {text}")
        if negative:
            forbidden |= set(uuids)
        else:
            members.append(set(uuids))
    return members, forbidden


def is_uuid(text):
    """True for a UUID in any usual form."""
    try:
        uuid.UUID(text)
        return True
    except ValueError:
        return False
