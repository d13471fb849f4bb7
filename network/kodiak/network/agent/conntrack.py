"""Deleting known connections; runs as root."""
import errno
import ipaddress
import socket

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from kodiak.network.agent.spaces import inside

SIDES = ('CTA_TUPLE_ORIG', 'CTA_TUPLE_REPLY')


def _addresses(entry):
    """The four addresses of a connection: source and destination, in each direction."""
    for side in SIDES:
        ip = entry.get_attr(side).get_attr('CTA_TUPLE_IP')
        for name in ('CTA_IP_V4_SRC', 'CTA_IP_V4_DST', 'CTA_IP_V6_SRC', 'CTA_IP_V6_DST'):
            value = ip.get_attr(name)
            if value:
                yield value


def cut(space, cuts):
    """Delete connections.

    :param cuts: a list of [zone, address]; the address may be a CIDR, or '' for all connections of the zone.
    """
    whole = {zone for zone, address in cuts if not address}
    single, wide = {}, {}
    for zone, text in cuts:
        if text:
            network = ipaddress.ip_network(text, strict=False)
            if network.prefixlen == network.max_prefixlen:
                single.setdefault(zone, set()).add(str(network.network_address))
            else:
                wide.setdefault(zone, []).append(network)

    def concerned(entry):
        zone = entry.get_attr('CTA_ZONE') or 0
        if zone in whole:
            return True
        if zone not in single and zone not in wide:
            return False
        mine = set(_addresses(entry))
        if mine & single.get(zone, set()):
            return True
        return any(ipaddress.ip_address(one) in network for network in wide.get(zone, ()) for one in mine)

    for family in (socket.AF_INET, socket.AF_INET6):
        with inside(space):
            tracker = NFCTSocket(nfgen_family=family)
        with tracker:
            doomed = [entry for entry in tracker.dump() if entry['nfgen_family'] == family and concerned(entry)]
            for entry in doomed:
                values = {'tuple_orig': entry.get_attr('CTA_TUPLE_ORIG')}
                zone = entry.get_attr('CTA_ZONE')
                if zone:
                    values['zone'] = zone
                try:
                    tracker.entry('del', **values)
                except NetlinkError as error:
                    if error.code != errno.ENOENT:
                        raise
