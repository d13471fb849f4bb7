"""Consoles: the serial log's end, and the interactive serial console.

virtlogd writes the log as root into files that only root may open, and rolls them over, so that a guest cannot
fill the disk. The agent reads them through libvirt's storage interface: a short-lived pool over the instance's
folder, and a download from its volume.
"""
import collections
import logging
import os
import secrets
import socket
import threading
import time

import libvirt

LOG = logging.getLogger(__name__)
KEPT = 4 << 20      # bytes: more than virtlogd keeps of a log and its last roll-over is never asked for


def tail(connection, path, length):
    """The last ``length`` bytes of a log and of what was rolled over before it; b'' where there is none.

    :param connection: an open libvirt connection.
    """
    length = KEPT if length is None else min(length, KEPT)
    found = b''
    for name in (path, path + '.0'):
        if len(found) >= length or not os.path.exists(name):
            break
        found = _read_end(connection, name, length - len(found)) + found
    return found


def _read_end(connection, path, length):
    size = os.path.getsize(path)
    offset = max(0, size - length)
    try:
        with open(path, 'rb') as file:
            file.seek(offset)
            return file.read(length)
    except PermissionError:
        return _download(connection, path, offset, min(size, length))


def _download(connection, path, offset, length):
    if not length:
        return b''
    folder = os.path.dirname(path)
    name = 'kodiak-console-' + os.path.basename(folder)
    xml = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
    try:
        pool = connection.storagePoolLookupByName(name)
        pool.refresh()
    except libvirt.libvirtError:
        pool = connection.storagePoolCreateXML(xml)
    try:
        stream = connection.newStream()
        pool.storageVolLookupByName(os.path.basename(path)).download(stream, offset, length)
        chunks = []
        while chunk := stream.recv(256 * 1024):
            chunks.append(chunk)
        stream.finish()
        return b''.join(chunks)
    finally:
        pool.destroy()


class Tickets:
    """Tickets for serial consoles: good once, for a minute, and given out only over RPC."""

    LIFE = 60

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._tickets = collections.OrderedDict()
        self._lock = threading.Lock()

    def give(self, uuid):
        """A new ticket for the console of a domain."""
        ticket = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            while self._tickets and next(iter(self._tickets.values()))[1] < now:
                self._tickets.popitem(last=False)
            self._tickets[ticket] = (uuid, now + self.LIFE)
        return ticket

    def take(self, ticket):
        """The uuid that a ticket is for, or None; it is not good again."""
        with self._lock:
            uuid, expires = self._tickets.pop(ticket, (None, 0))
        return uuid if expires >= self._clock() else None


def relay(caller, stream):
    """Pass bytes between a socket and a console's stream until one of them ends."""
    def from_guest():
        try:
            while data := stream.recv(64 * 1024):
                caller.sendall(data)
        except (OSError, libvirt.libvirtError) as error:
            LOG.debug('serial console: %s', error)
        finally:
            try:
                caller.shutdown(socket.SHUT_RDWR)
            except OSError:
                LOG.debug('the caller was gone')

    reader = threading.Thread(target=from_guest, name='serial-out', daemon=True)
    reader.start()
    try:
        while data := caller.recv(4096):
            while data:
                data = data[stream.send(data):]
    except OSError as error:
        LOG.debug('serial console: %s', error)
    finally:
        stream.abort()
        reader.join(5)
