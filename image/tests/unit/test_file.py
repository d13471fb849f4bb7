"""The file store: what is written reaches the disk, and what the disk says reaches the uploader."""
import os
import threading

import pytest

from kodiak.image.drivers import file

PIECE = os.urandom(1 << 20)


@pytest.fixture
def writer(tmp_path, monkeypatch):
    monkeypatch.setattr(file._Flusher, 'EVERY', 2 << 20)
    return file.FileWriter(str(tmp_path / 'writing'), str(tmp_path / 'ab' / 'blob'))


def test_pieces_are_flushed_while_more_come_and_all_are_there(writer, tmp_path, monkeypatch):
    synced, real = threading.Event(), os.fdatasync
    monkeypatch.setattr(os, 'fdatasync', lambda descriptor: (synced.set(), real(descriptor)))
    for _ in range(5):
        writer.write(PIECE)
    assert synced.wait(20)
    writer.commit()
    assert (tmp_path / 'ab' / 'blob').read_bytes() == PIECE * 5
    assert not (tmp_path / 'writing').exists()


@pytest.mark.parametrize('end', ['commit', 'abort'])
def test_a_flush_that_failed_is_no_blob(writer, tmp_path, monkeypatch, end):
    def broken(descriptor):
        raise OSError(5, 'Input/output error')
    monkeypatch.setattr(os, 'fdatasync', broken)
    for _ in range(4):
        writer.write(PIECE)
    writer._flusher._thread.join(20)        # it ends at a failure
    if end == 'commit':
        with pytest.raises(OSError, match='Input/output'):
            writer.commit()
    writer.abort()
    assert os.listdir(tmp_path) == []
