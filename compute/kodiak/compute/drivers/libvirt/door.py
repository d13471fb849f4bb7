"""The agent's own small HTTP port, for the console proxy and for other hosts' agents.

``GET /serial/<ticket>`` turns the connection into a guest's serial console; ``GET /disks/<uuid>`` and what is under
it hand the disks of a guest that moves to its new host. Each request shows a secret that was given out over RPC.
"""
import http.server
import logging
import threading

import libvirt

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import transfer

LOG = logging.getLogger(__name__)


class Door:
    """The listening port.

    :param folder: ``folder(uuid)`` gives the :class:`~.folder.Folder` of an instance.
    :param serial: ``serial(ticket, socket)`` serves a console; False if the ticket is not good.
    """

    def __init__(self, address, port, folder, serial):
        handler = type('Handler', (_Handler,), {'folder': staticmethod(folder), 'serial': staticmethod(serial)})
        self._server = http.server.ThreadingHTTPServer((address, port), handler)
        self.port = self._server.server_address[1]
        self.url = f'http://{address}:{self.port}'
        threading.Thread(target=self._server.serve_forever, name='door', daemon=True, args=(60,)).start()

    def close(self):
        """Take no more callers."""
        self._server.socket.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    folder = serial = None
    timeout = 600
    rbufsize = 0        # what follows a request for a console is the console's

    def do_GET(self):
        kind, _, rest = self.path.lstrip('/').partition('/')
        if kind == 'serial' and rest:
            self._console(rest)
        elif kind == 'disks' and rest:
            self._disks(*rest.split('/'))
        else:
            self.send_error(404)

    def _console(self, ticket):
        self.close_connection = True
        try:
            self.connection.settimeout(None)
            if not self.serial(ticket, self.connection):
                self.send_error(403)
        except (base.Fault, libvirt.libvirtError, OSError) as error:
            LOG.info('A serial console could not be served: %s', error)

    def _disks(self, uuid, *names):
        token = self.headers.get('X-Transfer-Token', '')
        folder = self.folder(uuid) if transfer.UUID.fullmatch(uuid) else None
        if folder is None or not transfer.admits(folder, token):
            self.send_error(403)
            return
        if not names:
            self._send(*transfer.listing(folder))
            return
        found = transfer.open_file(folder, names)
        if found is None:
            self.send_error(404)
            return
        with found:
            self._send(transfer.chunks(found), transfer.size(found))

    def _send(self, data, length):
        self.send_response(200)
        self.send_header('Content-Length', str(length))
        self.end_headers()
        for chunk in data:
            self.wfile.write(chunk)

    def log_message(self, text, *args):
        """Paths hold tickets: they are not logged."""
