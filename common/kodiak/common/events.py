"""What happened, for ``kodiak trace``: one JSON object a line, appended by each process to a file.

The files are ``<state_path>/<service>/events/<binary>.jsonl``; the processes of one API share theirs. A file that
has grown past its limit becomes ``.1``, so two files a process are the most that is kept. An event costs a few
microseconds; where nothing was set up (tests, commands) it costs nothing.
"""
import logging
import os
import time

import orjson
from oslo_context import context as oslo_context

from kodiak.common import log

LOG = logging.getLogger(__name__)

LIMIT = 20 * 2 ** 20        # bytes of one file
LOOK_EVERY = 500            # events between two looks at its size

_path, _file, _binary, _left = None, None, None, 0


def setup(folder, binary):
    """Write this process's events below ``folder`` from now on. Without the right to, it goes without."""
    global _path, _binary
    try:
        os.makedirs(folder, mode=0o750, exist_ok=True)
        _path, _binary = os.path.join(folder, binary + '.jsonl'), binary
        _open()
    except OSError as error:
        LOG.warning('Nothing will be seen of this process in kodiak trace: %s', error)
        _path = None
        return
    handler = _Problems(logging.WARNING)
    logging.getLogger().addHandler(handler)


def emit(kind, request_id=None, global_request_id=None, **what):
    """Note that something happened: ``kind`` is http, rpc, reconcile or log; ``what`` is JSON and holds no secrets."""
    global _left
    if _path is None:
        return
    line = orjson.dumps({'at': time.time(), 'binary': _binary, 'kind': kind, 'request_id': request_id,
                         'global_request_id': global_request_id, **what}, default=str) + b'\n'
    try:
        # One write of a line at the end of the file is not mixed with those of other processes.
        os.write(_file, line)
        _left -= 1
        if _left <= 0:
            _turn()
    except OSError as error:
        LOG.debug('An event was lost: %s', error)


def _open():
    global _file, _left
    _file = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    _left = LOOK_EVERY


def _turn():
    """Take a new file where this one is full, or where another process did so already."""
    global _left
    _left = LOOK_EVERY
    mine = os.fstat(_file)
    try:
        other = os.stat(_path).st_ino != mine.st_ino
    except FileNotFoundError:
        other = True
    if not other and mine.st_size > LIMIT:
        os.replace(_path, _path + '.1')
        other = True
    if other:
        old = _file
        _open()
        os.close(old)


class _Problems(logging.Handler):
    """Makes events of warnings and errors that were logged for a request."""

    def emit(self, record):
        current = oslo_context.get_current()
        if current is None or current.request_id is None or record.name == __name__:
            return
        emit('log', current.request_id, current.global_request_id, level=record.levelname, logger=record.name,
             message=log.mask(record.getMessage())[:1000])
