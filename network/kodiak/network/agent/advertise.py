"""Router advertisements (RFC 4861, RDNSS of RFC 8106) from the legs of routers, for subnets that ask for them."""
import ipaddress
import logging
import random
import selectors
import struct
import threading
import time

from kodiak.network.agent import names
from kodiak.network.agent.routers import leg_addresses

LOG = logging.getLogger(__name__)

ADVERTISEMENT = 134
HOP_LIMIT, LIFETIME = 64, 1800
VALID, PREFERRED = 86400, 14400
INTERVAL = (40.0, 60.0)                         # seconds between two unasked ones
PAUSE = 0.5                                     # seconds at least between two on a link
EVERYONE = 'ff02::1'


def message(mac, mtu, subnets):
    """An advertisement's ICMPv6 message, its checksum left to the kernel.

    :param subnets: the ``state.Subnet`` documents whose addresses the leg has and that have an ``ipv6_ra_mode``.
    """
    modes = {subnet.ipv6_ra_mode for subnet in subnets}
    flags = (0x80 if 'dhcpv6-stateful' in modes else 0) | (0x40 if modes & {'dhcpv6-stateful', 'dhcpv6-stateless'} else 0)
    parts = [struct.pack('!BBHBBHII', ADVERTISEMENT, 0, 0, HOP_LIMIT, flags, LIFETIME, 0, 0),
             struct.pack('!BB6s', 1, 1, bytes.fromhex(mac.replace(':', ''))), struct.pack('!BBHI', 5, 1, 0, mtu)]
    servers = []
    for subnet in subnets:
        network = ipaddress.ip_network(subnet.cidr)
        autonomous = 0x40 if subnet.ipv6_ra_mode in ('slaac', 'dhcpv6-stateless') else 0
        parts.append(struct.pack('!BBBBIII16s', 3, 4, network.prefixlen, 0x80 | autonomous, VALID, PREFERRED, 0,
                                 network.network_address.packed))
        servers += [one for one in subnet.dns_nameservers if ':' in one and one not in servers]
    if servers:
        packed = b''.join(ipaddress.IPv6Address(one).packed for one in servers)
        parts.append(struct.pack('!BBHI', 25, 1 + 2 * len(servers), 0, LIFETIME) + packed)
    return b''.join(parts)


def plan(wanted):
    """What is to be advertised: {(namespace, interface): (message, owner)}."""
    found = {}
    for key, router in wanted.routers.items():
        for leg in router.legs if router.admin_state_up else ():
            subnets = [subnet for _, subnet in leg_addresses(wanted, leg)
                       if subnet.ip_version == 6 and subnet.ipv6_ra_mode]
            if subnets:
                mtu = wanted.networks[leg.network_id].mtu
                found[names.router_namespace(key), names.router_leg(leg.port_id)[1]] = (
                    message(leg.mac, mtu, subnets), ('routers', key))
    return found


class Advertiser:
    """Sends advertisements at intervals and when asked to.

    :param hands: opens the sockets.
    """

    def __init__(self, hands):
        self.hands = hands
        self._lock = threading.Lock()
        self._sockets, self._messages = {}, {}  # (space, leg) -> socket; -> message
        self._due, self._sent = {}, {}
        self._selector = selectors.DefaultSelector()
        self._thread = None
        self._stopping = threading.Event()

    def leave(self, made, wanted, fresh):
        """Close sockets of legs that are not to advertise any more, or are about to be made anew."""
        want = plan(wanted)
        for key in list(self._sockets):
            if key not in want or key[0] in fresh or key in fresh:
                self._close(key)

    def join(self, made, wanted, errors):
        """Open sockets on new legs; what changed is sent at once."""
        for key, (text, owner) in plan(wanted).items():
            if key not in self._sockets:
                if owner in errors or key[1] not in made.spaces[key[0]].links:
                    continue
                try:
                    opened = self.hands.open(key[0], 'icmp6', device=key[1])
                except Exception as error:
                    LOG.warning('No router advertisements on %s: %s', key[1], error)
                    errors.setdefault(owner, f'router advertisements: {error}')
                    continue
                opened.setblocking(False)
                with self._lock:
                    self._sockets[key] = opened
                    self._selector.register(opened, selectors.EVENT_READ, key)
            if self._messages.get(key) != text:
                self._messages[key] = text
                self._due[key] = time.monotonic()
        if self._sockets and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name='router-advertisements', daemon=True)
            self._thread.start()

    def stop(self):
        """Send no more."""
        self._stopping.set()
        for key in list(self._sockets):
            self._close(key)

    def _close(self, key):
        with self._lock:
            opened = self._sockets.pop(key)
            self._selector.unregister(opened)
            opened.close()
        for table in (self._messages, self._due, self._sent):
            table.pop(key, None)

    def _loop(self):
        while not self._stopping.is_set():
            if not self._sockets:
                self._stopping.wait(1.0)
                continue
            for selected, _ in self._selector.select(0.5):
                self._hear(selected.fileobj, selected.data)
            now = time.monotonic()
            for key, when in list(self._due.items()):
                if when <= now:
                    self._send(key, now)

    def _hear(self, opened, key):
        """A solicitation: it is answered to all, soon, and not more than once for many."""
        try:
            opened.recv(2048)
        except OSError:
            return
        self._due[key] = min(self._due.get(key, 0.0), max(time.monotonic(), self._sent.get(key, 0.0) + PAUSE))

    def _send(self, key, now):
        opened, text = self._sockets.get(key), self._messages.get(key)
        if opened is None or text is None:
            self._due.pop(key, None)
            return
        try:
            opened.sendto(text, (EVERYONE, 0, 0, 0))
            self._due[key] = now + random.uniform(*INTERVAL)
            self._sent[key] = now
        except OSError as error:
            # Right after the link came up it may have no link-local address yet.
            LOG.debug('No advertisement on %s yet: %s', key[1], error)
            self._due[key] = now + PAUSE
