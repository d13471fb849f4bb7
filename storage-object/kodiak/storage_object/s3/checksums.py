"""Checksums of bodies (``x-amz-checksum-*``): those that are told, those that are made as a body passes, those that are kept.

An object's is kept as ``<algorithm> <base64> <FULL_OBJECT|COMPOSITE>``; of an upload, ``<algorithm> <type>``: what its parts have.
"""
import base64
import binascii
import hashlib

from isal import isal_zlib

from . import crc
from .errors import S3Error

KEPT, UPLOAD = 'X-Object-Sysmeta-S3Api-Checksum', 'X-Object-Sysmeta-S3Api-Checksum-Of-Parts'
LENGTHS = {'crc32': 4, 'crc32c': 4, 'crc64nvme': 8, 'sha1': 20, 'sha256': 32}
PREFIX = 'X-Amz-Checksum-'
SETTINGS = ('Algorithm', 'Mode', 'Type')
FULL, COMPOSITE = 'FULL_OBJECT', 'COMPOSITE'


class _Crc32:
    def __init__(self):
        self.value = 0

    def update(self, data):
        self.value = isal_zlib.crc32(data, self.value)

    def digest(self):
        return self.value.to_bytes(4, 'big')


def _maker(name):
    if name == 'crc32':
        return _Crc32()
    return crc.Crc(crc.KNOWN[name]) if name in crc.KNOWN else hashlib.new(name, usedforsecurity=False)


class Checksums:
    """Made as a body passes. ``wanted``: their names."""

    def __init__(self, wanted):
        self.makers = {name: _maker(name) for name in wanted if name in LENGTHS}

    def want(self, name):
        """One more, before the body comes."""
        self.makers.setdefault(name, _maker(name))

    def add(self, data):
        """Some of the body."""
        for maker in self.makers.values():
            maker.update(data)

    def made(self, name):
        """One in base64, after the body."""
        return base64.b64encode(self.makers[name].digest()).decode()

    def verify(self, told):
        """Compare with what was told: name to base64. Raises BadDigest."""
        for name, value in told.items():
            checked(name, value)
            if self.made(name) != value.strip():
                raise S3Error('BadDigest', f'The {name.upper()} you specified did not match the calculated checksum.')


class Summed:
    """A stream whose checksums are made as it is read."""

    def __init__(self, stream, *wanted):
        self.stream, self.sums = stream, Checksums(wanted)

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = self.stream.read(size)
        self.sums.add(data)
        return data


class Told(Summed):
    """A stream of which a checksum has been told, name to base64; raises BadDigest at its end where it is another."""

    def __init__(self, stream, told):
        super().__init__(stream, *told)
        self.told = told

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = super().read(size)
        if not data and size:
            self.sums.verify(self.told)
        return data


def checked(name, value):
    """A checksum that may be one; InvalidRequest otherwise."""
    try:
        data = base64.b64decode(value.strip(), validate=True)
        good = len(data) == LENGTHS[name] and base64.b64encode(data).decode() == value.strip()
    except (binascii.Error, ValueError, KeyError):
        good = False
    if not good:
        raise S3Error('InvalidRequest', f'Value for x-amz-checksum-{name} header is invalid.')
    return value


def told_by(headers):
    """What a request's headers tell of its body: name to base64, at most one."""
    told = {n[len(PREFIX):].lower(): v for n, v in headers.items() if n.startswith(PREFIX) and n[len(PREFIX):] not in SETTINGS}
    follow = [word for word in (headers.get('X-Amz-Trailer') or '').lower().split(',') if word.strip().startswith(PREFIX.lower())]
    if len(told) > 1 or len(follow) > 1:
        raise S3Error('InvalidRequest', 'Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.')
    if told and follow:
        raise S3Error('InvalidRequest', 'Expecting a single x-amz-checksum- header')
    for name, value in told.items():
        if name not in LENGTHS:
            raise S3Error('InvalidRequest', 'The algorithm type you specified in x-amz-checksum- header is invalid.')
        checked(name, value)
    chosen = (headers.get('X-Amz-Sdk-Checksum-Algorithm') or '').lower()
    if chosen and (chosen not in LENGTHS or (told and chosen not in told)):
        raise S3Error('InvalidRequest', 'Value for x-amz-sdk-checksum-algorithm header is invalid.')
    if chosen and not told and not headers.get('X-Amz-Trailer'):
        raise S3Error('InvalidRequest', 'x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or '
                                        'x-amz-trailer headers were found.')
    return {name: value.strip() for name, value in told.items()}


def trailing(headers):
    """The names of the checksums that follow a body."""
    names = [name.strip() for name in (headers.get('X-Amz-Trailer') or '').lower().split(',') if name.strip()]
    for name in names:
        if name.removeprefix('x-amz-checksum-') not in LENGTHS:
            raise S3Error('InvalidRequest', 'The value specified in the x-amz-trailer header is not supported')
    return [name.removeprefix('x-amz-checksum-') for name in names]


def algorithm(headers, name='X-Amz-Checksum-Algorithm'):
    """The algorithm that a request names, or None."""
    text = headers.get(name)
    if text is None:
        return None
    if text.lower() not in LENGTHS:
        raise S3Error('InvalidRequest', 'Checksum algorithm provided is unsupported. Please try again with any of the valid types: '
                                        '[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]')
    return text.lower()


def of_upload(headers):
    """What an upload that begins wants of its parts, as it is kept; None for nothing."""
    name, kind = algorithm(headers), headers.get('X-Amz-Checksum-Type')
    if kind is not None and kind not in (FULL, COMPOSITE):
        raise S3Error('InvalidRequest', 'Value for x-amz-checksum-type header is invalid.')
    if name is None:
        if kind is not None:
            raise S3Error('InvalidRequest', 'The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm '
                                            'header.')
        return None
    kind = kind or (FULL if name == 'crc64nvme' else COMPOSITE)
    if (kind == FULL and name not in crc.KNOWN) or (kind == COMPOSITE and name == 'crc64nvme'):
        raise S3Error('InvalidRequest', f'The {kind} checksum type cannot be used with the {name} checksum algorithm.')
    return f'{name} {kind}'


def kept(name, value, kind=FULL):
    """A checksum as it is kept."""
    return f'{name} {value} {kind}'


def known(headers):
    """``(algorithm, base64, type)`` of an object's headers, or None."""
    text = headers.get(KEPT)
    return tuple(text.split(' ')) if text else None


def shown(found):
    """S3's headers of what :func:`known` has found."""
    if found is None:
        return {}
    name, value, kind = found
    return {PREFIX + name: value, PREFIX + 'Type': kind}


def element(name):
    """What an algorithm is called in XML."""
    return 'Checksum' + name.upper()


def of_parts(name, kind, parts):
    """The whole's checksum in base64. ``parts``: ``[(base64, bytes)]``."""
    raw = [(base64.b64decode(value), size) for value, size in parts]
    if kind == COMPOSITE:
        maker = _maker(name)
        maker.update(b''.join(data for data, _ in raw))
        return f'{base64.b64encode(maker.digest()).decode()}-{len(raw)}'
    whole = 0
    for data, size in raw:
        whole = crc.KNOWN[name].combine(whole, int.from_bytes(data, 'big'), size)
    return base64.b64encode(whole.to_bytes(LENGTHS[name], 'big')).decode()
