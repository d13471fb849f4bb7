"""Linux bridges and VXLAN: see ``l2`` for links, ``firewall`` for filters,
``cuts`` for what ends with a filter, ``marks`` for what packets are marked with, ``tunnel`` for who may send VXLAN here."""
from kodiak.network.drivers.linuxbridge import cuts, firewall, l2, marks, tunnel
from kodiak.network.drivers.namespaces import NamespaceDriver


class Shape:
    """How this driver plans, see ``namespaces.plan``."""

    plug = staticmethod(l2.plug)
    cuts = staticmethod(cuts.plan)

    @staticmethod
    def host(wanted, settings, observed):
        """(the host's Namespace, {network id: bridge}, {network id: sentence})."""
        return l2.plan(wanted, settings.facts, settings.tap_owner, observed.others)

    @staticmethod
    def filters(wanted, bridges, observed):
        """({title: Table}, ids of the ports that need them, {port id: sentence})."""
        tables, filtered, problems = firewall.plan(wanted, bridges, observed)
        return {**tunnel.plan(wanted, bridges), **marks.plan(wanted, bridges), **tables}, filtered, problems


class Driver(NamespaceDriver):
    """The driver ``linuxbridge``."""

    shape = Shape
