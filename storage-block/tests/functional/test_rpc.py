"""The table of calls says what it means."""
from kodiak.storage_block import rpc


def test_every_call_is_described():
    for table in (rpc.CONDUCTOR, rpc.AGENT):
        for entry in (*table.calls.values(), *table.casts.values()):
            assert entry.doc.endswith('.') and entry.args
