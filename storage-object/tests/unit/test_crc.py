"""CRCs that the standard library has not, against a table of bytes and against zlib."""
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kodiak.storage_object.s3 import crc


@pytest.mark.parametrize('name, value', [('crc32', 'cbf43926'), ('crc32c', 'e3069283'), ('crc64nvme', 'ae8b14860a799888')])
def test_check_values(name, value):
    made = crc.Crc(crc.KNOWN[name])
    made.update(b'123456789')
    assert made.digest().hex() == value


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 255), size=st.integers(0, 3 * crc.LEAST), cuts=st.lists(st.integers(1, crc.LEAST), max_size=5))
def test_a_body_in_pieces(seed, size, cuts):
    data = bytes((seed + number * number) & 255 for number in range(257)) * (size // 257 + 1)
    data, made, start = data[:size], [crc.Crc(known) for known in crc.KNOWN.values()], 0
    for cut in (*cuts, size):
        for each in made:
            each.update(data[start:start + cut])
        start += cut
    for each in made:
        each.update(data[start:])
    assert made[0].digest() == zlib.crc32(data).to_bytes(4, 'big')
    for each in made[1:]:
        known = each.polynomial
        assert int.from_bytes(each.digest(), 'big') == known.run(known.all, data) ^ known.all


@given(first=st.binary(max_size=100), second=st.binary(max_size=100))
def test_two_bodies_together(first, second):
    for known in crc.KNOWN.values():
        def made(data, known=known):
            return known.run(known.all, data) ^ known.all
        assert known.combine(made(first), made(second), len(second)) == made(first + second)
