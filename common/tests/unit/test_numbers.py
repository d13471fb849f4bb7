"""What users send for numbers."""
import pytest

from kodiak.common.numbers import natural


@pytest.mark.parametrize('text, number', [('0', 0), ('007', 7), ('9' * 19, 10 ** 19 - 1)])
def test_digits(text, number):
    assert natural(text) == number


@pytest.mark.parametrize('text', ['', '-1', '+1', '1.0', ' 1', '1_0', '²', '١', '9' * 20, '9' * 5000])
def test_anything_else(text):
    assert natural(text) is None
