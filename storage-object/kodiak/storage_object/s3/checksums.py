"""Checksums of bodies (``x-amz-checksum-*``): those that are told, and those that are made as a body passes.

CRC32C and CRC64NVME are made by the library awscrt; where it is not installed, what is told of these is taken as it is.
"""
import base64
import binascii
import hashlib
import zlib

from .errors import S3Error

try:
    from awscrt import checksums as crt
except ImportError:
    crt = None

LENGTHS = {'crc32': 4, 'crc32c': 4, 'crc64nvme': 8, 'sha1': 20, 'sha256': 32}
PREFIX = 'X-Amz-Checksum-'


class _Crc:
    def __init__(self, function, length):
        self.function, self.length, self.value = function, length, 0

    def update(self, data):
        self.value = self.function(data, self.value)

    def digest(self):
        return self.value.to_bytes(self.length, 'big')


def _maker(name):
    if name in ('sha1', 'sha256'):
        return hashlib.new(name, usedforsecurity=False)
    function = {'crc32': zlib.crc32, 'crc32c': crt and crt.crc32c, 'crc64nvme': crt and crt.crc64nvme}[name]
    return _Crc(function, LENGTHS[name]) if function else None


class Checksums:
    """Made as a body passes. ``wanted``: their names."""

    def __init__(self, wanted):
        self.makers = {name: maker for name in wanted if name in LENGTHS and (maker := _maker(name)) is not None}

    def add(self, data):
        """Some of the body."""
        for maker in self.makers.values():
            maker.update(data)

    def verify(self, told):
        """Compare with what was told: name to base64. Raises BadDigest."""
        for name, value in told.items():
            checked(name, value)
            if name in self.makers and base64.b64encode(self.makers[name].digest()).decode() != value.strip():
                raise S3Error('BadDigest', f'The {name.upper()} you specified did not match the calculated checksum.')


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
    """What a request's headers tell: name to base64, at most one."""
    told = {n[len(PREFIX):].lower(): v for n, v in headers.items() if n.startswith(PREFIX) and n[len(PREFIX):] not in (
        'Algorithm', 'Mode', 'Type')}
    if len(told) > 1:
        raise S3Error('InvalidRequest', 'Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.')
    for name, value in told.items():
        if name not in LENGTHS:
            raise S3Error('InvalidRequest', f'x-amz-checksum-{name} is none that is known')
        checked(name, value)
    chosen = (headers.get('X-Amz-Sdk-Checksum-Algorithm') or '').lower()
    if chosen and (chosen not in LENGTHS or (told and chosen not in told)):
        raise S3Error('InvalidRequest', 'Value for x-amz-sdk-checksum-algorithm header is invalid.')
    return told


def trailing(headers):
    """The names of the checksums that follow a body."""
    names = [name.strip() for name in (headers.get('X-Amz-Trailer') or '').lower().split(',') if name.strip()]
    for name in names:
        if name.removeprefix('x-amz-checksum-') not in LENGTHS:
            raise S3Error('InvalidRequest', 'The value specified in the x-amz-trailer header is not supported')
    return [name.removeprefix('x-amz-checksum-') for name in names]
