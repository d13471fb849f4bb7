"""The two hosts of these tests (``lab.py``), with their agents and guests."""
import pytest

from kodiak.common import testing

hosts, = testing.share(__file__, 'lab', prefix='network')


@pytest.fixture(scope='module')
def lab():
    made = hosts.Lab()
    try:
        made.start()
        yield made
    finally:
        made.close()
