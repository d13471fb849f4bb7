"""How the agent, which has no rights, has things done and looked at: through the privileged daemon."""
import contextlib
import os
import socket
import threading

from kodiak.network.agent import root
from kodiak.network.agent.layout import Link, Namespace
from kodiak.network.agent.nft import parse

FIELDS = ('kind', 'mtu', 'up', 'master', 'mac', 'ipv6', 'vni', 'local', 'owner', 'mark', 'funnel')


class Observed:
    """What the host is.

    Attributes: ``spaces`` ({namespace: layout.Namespace}), ``tables`` ({namespace: {title: nft.Table}}), ``others`` (names of
    the host's links that are not ours), ``inodes`` ({namespace: inode}), ``services`` ({folder: [(pid, pid file, inode)]}).
    """

    def __init__(self, raw):
        self.spaces, self.tables, self.inodes = {}, {}, {}
        self.others = set(raw['spaces']['']['others'])
        for name, found in raw['spaces'].items():
            self.spaces[name] = Namespace(
                links={key: Link(**{field: link.get(field) for field in FIELDS}) for key, link in found['links'].items()},
                addresses={key: set(value) for key, value in found['addresses'].items()},
                routes={(destination, gateway, '' if gateway else device): (device, False)
                        for destination, gateway, device in found['routes']},
                fdb={key: {tuple(pair) for pair in value} for key, value in found['fdb'].items()},
                sysctls=dict(found['sysctls']))
            self.tables[name] = {}
            for text in found['tables']:
                self.tables[name].update(parse(text))
            self.inodes[name] = found['inode']
        self.services = services(raw['dnsmasq'])


def services(raw):
    """``root.services()`` as {folder: [(pid, pid file's name, inode of the namespace)]}."""
    found = {}
    for pid, folder, pid_name, inode in raw:
        found.setdefault(folder, []).append((pid, pid_name, inode))
    return found


class Hands:
    """The privileged daemon as seen by the agent.

    :param run_path: folder for the socket by which open sockets are passed.
    """

    def __init__(self, run_path):
        self.path = os.path.join(run_path, f'kodiak-network-agent.{os.getpid()}.sockets')
        self._lock = threading.Lock()

    def look(self):
        """The host as :class:`Observed`."""
        return Observed(root.look())

    def services(self):
        """The running dnsmasq processes, as in :class:`Observed`."""
        return services(root.services())

    def perform(self, operations):
        """Do operations; for each, None or a sentence that says what went wrong."""
        return root.perform([list(operation) for operation in operations]) if operations else []

    def open(self, space, kind, address='', port=0, device=''):
        """A socket that is open inside a namespace.

        :param kind: ``tcp`` or ``icmp6``, see ``root.open_listener``.
        """
        with self._lock:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
                waiting.bind(self.path)
                os.chmod(self.path, 0o600)
                waiting.listen(1)
                waiting.settimeout(15)
                try:
                    root.open_listener(space, kind, self.path, address, port, device)
                    carrier, _ = waiting.accept()
                    with carrier:
                        _, received, _, _ = socket.recv_fds(carrier, 1, 1)
                finally:
                    os.unlink(self.path)
        return socket.socket(fileno=received[0])
