import os

import pytest

from kodiak.identity import keys


def test_set_up_twice_changes_nothing(tmp_path):
    ring = keys.KeyRing(str(tmp_path / 'k'), 100)
    with pytest.raises(keys.NoKeys):
        ring.signing()
    assert len(ring.setup()) == 2 and ring.setup() == []
    assert len(ring.public()) == 2
    assert all(os.stat(tmp_path / 'k' / name).st_mode & 0o777 == 0o600 for name in os.listdir(tmp_path / 'k'))
    assert os.stat(tmp_path / 'k').st_mode & 0o777 == 0o700


def test_a_key_is_published_before_it_signs_and_after(tmp_path):
    ring = keys.KeyRing(str(tmp_path), 100)
    ring.setup()
    first = ring.signing()[0]
    coming = next(iter(set(ring.public()) - {first}))
    assert ring.rotate(now=1000) == (coming, next(iter(set(ring.public()) - {first, coming})))
    assert ring.signing()[0] == coming and first in ring.public()
    ring.purge(now=1099)
    assert first in ring.public()
    ring.purge(now=1100)
    assert first not in ring.public() and len(ring.public()) == 2


def test_a_key_that_leaked_is_gone(tmp_path):
    ring = keys.KeyRing(str(tmp_path), 100)
    ring.setup()
    ring.rotate()
    names = dict(ring.listing())
    for name in list(names):
        ring.remove(names[name])
        assert names[name] not in ring.public()
        ring.signing()
    with pytest.raises(KeyError):
        ring.remove('nothing')


def test_what_is_public_is_the_same_object_while_nothing_changes(tmp_path):
    ring = keys.KeyRing(str(tmp_path), 100)
    ring.setup()
    assert ring.public() is ring.public()
