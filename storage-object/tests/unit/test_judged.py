"""What a client is told of a write with a condition, whatever the devices answer."""
import types

import pytest

from kodiak.storage_object.proxy import judged
from kodiak.storage_object.proxy.http import Fault

DEVICES = [{'id': number} for number in range(6)]
HANDOFF = {'id': 9}


class Client:
    """A way to devices of which none answers any more."""

    nodes = types.SimpleNamespace(out=lambda node: False)

    def __init__(self):
        self.told = []

    def ask_each(self, method, part, path, each):
        self.told += [(headers['X-Backend-Held'], node['id']) for node, headers in each]
        return []

    def ask(self, *args):
        return None


def answer(node, status, stamp=''):
    return types.SimpleNamespace(node=node, status=status, headers={'X-Backend-Timestamp': stamp})


@pytest.mark.parametrize('said, status', [(423, 409), (409, 409), (412, 412)])
def test_what_a_handoff_has_is_a_conflict(said, status):
    client = Client()
    ring = types.SimpleNamespace(primaries=lambda part: DEVICES)
    write = judged.Judgement(client, ring, 1, '/a/c/o', [{'X-Backend-Storage-Policy-Index': '1'}], {'If-None-Match': '*'})
    answers = [*(answer(node, 201) for node in DEVICES[:4]), answer(HANDOFF, said, '0000000001.00000')]
    with pytest.raises(Fault) as caught:
        write.run(lambda: answers, stored=5, placed=5)
    assert caught.value.status == status
    assert {what for what, _ in client.told} == {'release'}
    assert {number for _, number in client.told} == {0, 1, 2, 3, 4, 5}
