"""Limits of names, metadata and headers, and their checks."""
import dataclasses
import time

from .http import Fault, from_wsgi
from .ranges import number


@dataclasses.dataclass
class Limits:
    """The limits that ``/info`` shows."""

    max_file_size: int = 5368709122
    max_meta_name_length: int = 128
    max_meta_value_length: int = 256
    max_meta_count: int = 90
    max_meta_overall_size: int = 4096
    max_header_size: int = 8192
    max_object_name_length: int = 1024
    container_listing_limit: int = 10000
    account_listing_limit: int = 10000
    max_account_name_length: int = 256
    max_container_name_length: int = 256
    extra_header_count: int = 0


LIMITS = Limits()


def check_path(account, container=None, name=None):
    """400 or 412 for a name that cannot be."""
    if len(account.encode()) > LIMITS.max_account_name_length:
        raise Fault(400, f'Account name length of {len(account.encode())} longer than {LIMITS.max_account_name_length}')
    if container is not None and len(container.encode()) > LIMITS.max_container_name_length:
        raise Fault(400, f'Container name length of {len(container.encode())} longer than {LIMITS.max_container_name_length}')
    if name is not None and len(name.encode()) > LIMITS.max_object_name_length:
        raise Fault(400, f'Object name length of {len(name.encode())} longer than {LIMITS.max_object_name_length}')


def check_metadata(request, kind):
    """400 for user metadata that is too much. ``kind``: account, container, object."""
    prefix = f'X-{kind}-Meta-'.title()
    count = size = 0
    for name, value in request.headers.items():
        if len(value) > LIMITS.max_header_size:
            raise Fault(400, f'Header value too long: {name[:128]}')
        if not name.startswith(prefix):
            continue
        key = name[len(prefix):]
        if not key:
            raise Fault(400, 'Metadata name cannot be empty')
        try:
            text = from_wsgi(value)
            text.encode()
        except UnicodeError:
            raise Fault(400, f'Metadata must be valid UTF-8: {key}') from None
        if len(key) > LIMITS.max_meta_name_length:
            raise Fault(400, f'Metadata name too long: {key}')
        if len(value) > LIMITS.max_meta_value_length:
            raise Fault(400, f'Metadata value longer than {LIMITS.max_meta_value_length}: {key}')
        count += 1
        size += len(key) + len(value)
    if count > LIMITS.max_meta_count:
        raise Fault(400, f'Too many metadata items; max {LIMITS.max_meta_count}')
    if size > LIMITS.max_meta_overall_size:
        raise Fault(400, f'Total metadata too large; max {LIMITS.max_meta_overall_size}')


def check_total(request, kind, known):
    """400 where a request's metadata and what is there already are too much together. ``known``: short name to value."""
    prefix, remove = f'X-{kind}-Meta-'.title(), f'X-Remove-{kind}-Meta-'.title()
    total = {name.lower(): value for name, value in known.items()}
    for name, value in request.headers.items():
        if name.startswith(prefix):
            total[name[len(prefix):].lower()] = value
        elif name.startswith(remove):
            total[name[len(remove):].lower()] = ''
    total = {name: value for name, value in total.items() if value}
    if len(total) > LIMITS.max_meta_count:
        raise Fault(400, f'Too many metadata items; max {LIMITS.max_meta_count}')
    if sum(len(name) + len(value) for name, value in total.items()) > LIMITS.max_meta_overall_size:
        raise Fault(400, f'Total metadata too large; max {LIMITS.max_meta_overall_size}')


def delete_at(request):
    """Set X-Delete-At of X-Delete-After; 400 for a moment that is none or is past."""
    headers = request.headers
    if (after := headers.pop('X-Delete-After')) is not None and after != '':
        if number(after.removeprefix('-')) is None:
            raise Fault(400, 'Non-integer X-Delete-After')
        if after.startswith('-'):
            raise Fault(400, 'X-Delete-After in past')
        headers['X-Delete-At'] = str(int(time.time()) + number(after))
    if (at := headers.get('X-Delete-At')) not in (None, ''):
        moment = number(at.removeprefix('-'))
        if moment is None:
            raise Fault(400, 'Non-integer X-Delete-At')
        if at.startswith('-') or moment <= time.time():
            raise Fault(400, 'X-Delete-At in past')
        headers['X-Delete-At'] = str(min(moment, 9999999999))
