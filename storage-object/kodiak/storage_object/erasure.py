"""Erasure codes: a body is cut into segments, each of them into fragments, of which fewer than all are enough to read it.

Of every segment each device gets one fragment: the data in as many parts as ``data`` says, then ``parity`` more. The fragments of
one number, one after another, are what a device stores (an archive). A fragment begins with a header of liberasurecode's, in
which its number and its CRC-32 are; so one that is damaged is known by itself.
"""
import re
import struct

SEGMENT = 1 << 20
TYPE = 'liberasurecode_rs_vand'
#: How a fragment begins: its number, the bytes of data in it, the bytes its code has added; and the length of the whole header.
HEADER, HEADER_SIZE = struct.Struct('<III'), 80
SCHEME = re.compile(r'(?P<data>\d+)\+(?P<parity>\d+)(?:\*(?P<copies>\d+))?(?:/(?P<kind>\w+))?\Z')


class Damaged(Exception):
    """A fragment is not what was made."""


class Codec:
    """Makes fragments, and bodies and fragments of fragments.

    :param data: how many fragments are needed. :param parity: how many more there are. :param copies: how many of each.
    :param kind: one of liberasurecode's names.
    :raises ValueError: it does not know this, or is not installed.
    """

    def __init__(self, data, parity, copies=1, kind=TYPE, segment=SEGMENT):
        try:
            from pyeclib import ec_iface
        except ImportError as error:
            raise ValueError('Storage policies with erasure codes need pyeclib and liberasurecode, which are not installed '
                             f'({error})') from error
        self.data, self.parity, self.copies, self.kind, self.segment = data, parity, copies, kind, segment
        try:
            self._driver = ec_iface.ECDriver(ec_type=kind, k=data, m=parity, chksum_type='inline_crc32')
        except (ec_iface.ECDriverError, ValueError) as error:
            raise ValueError(f'There is no erasure code {data}+{parity}/{kind}: {error}') from error
        self._failed = ec_iface.ECDriverError
        self.count = data + parity
        self.replicas = self.count * copies
        # So many devices are told that a write is durable before it is answered: some are left when as many as may be are lost.
        self.durable = max(self.replicas // 2 + 1, parity * copies + 1)
        # So many have stored it: one more than needed, whichever fragments they have, so that no device is the last.
        self.quorum = max((data - 1) * copies + 2, self.durable)
        self.fragment = self.fragment_size(segment)

    @classmethod
    def of(cls, text):
        """From ``4+2``, ``4+2*2`` (of each fragment two), ``4+2/isa_l_rs_vand``."""
        found = SCHEME.match(text)
        if not found or not int(found['data']) or not int(found['parity']) or found['copies'] == '0':
            raise ValueError(f'{text!r} is no erasure code: DATA+PARITY[*COPIES][/TYPE]')
        return cls(int(found['data']), int(found['parity']), int(found['copies'] or 1), found['kind'] or TYPE)

    @property
    def scheme(self):
        """As in the configuration."""
        return f'{self.data}+{self.parity}' + (f'*{self.copies}' if self.copies > 1 else '') + f'/{self.kind}'

    @property
    def majority(self):
        """So many devices must agree to a change: the others are too few to make up a body of what was before."""
        return max(self.replicas // 2 + 1, self.replicas - self.data + 1)

    def fragment_size(self, length):
        """Bytes of a fragment of a segment of so many bytes."""
        return self._driver.get_segment_info(length, max(length, self.segment))['fragment_size'] if length else 0

    def archive_size(self, length):
        """Bytes that a device stores of a body."""
        whole, rest = divmod(length, self.segment)
        return whole * self.fragment + self.fragment_size(rest)

    def encode(self, segment):
        """The fragments of a segment, in order."""
        return self._driver.encode(segment)

    def check(self, fragment, index):
        """Raise :class:`Damaged` if a fragment is not whole, or another."""
        # The library believes the length in the header, and reads beyond the end of a fragment that is shorter.
        if len(fragment) < HEADER_SIZE or len(fragment) != HEADER_SIZE + sum(HEADER.unpack_from(fragment)[1:]):
            raise Damaged('its length is another')
        try:
            found = self._driver.get_metadata(fragment, 1)
        except self._failed as error:
            raise Damaged(str(error)) from error
        if found['chksum_mismatch'] or found['index'] != index:
            raise Damaged('its checksum or its number is another')

    def decode(self, fragments):
        """A segment, of enough fragments."""
        try:
            return self._driver.decode(fragments)
        except self._failed as error:
            raise Damaged(str(error)) from error

    def rebuild(self, fragments, index):
        """A fragment, of enough others."""
        try:
            return self._driver.reconstruct(fragments, [index])[0]
        except self._failed as error:
            raise Damaged(str(error)) from error
