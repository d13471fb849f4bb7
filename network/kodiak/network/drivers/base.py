"""What brings the networks of a host about: the interface of drivers, loaded by name (``[agent] driver``)."""
import abc


class Driver(abc.ABC):
    """Brings one host to its wanted state.

    The agent keeps the wanted state, calls :meth:`apply` whenever it changed, and reports what came of it; how the
    host does it is the driver's own affair. A driver changes only differences: applied twice, the second time does
    nothing; started on a host that is as it should be, it disturbs no packet.

    :param conf: the configuration (``kodiak.network.agent.conf``).
    :param facts: ``state.AgentFacts`` of this host.
    """

    def __init__(self, conf, facts):
        self.conf, self.facts = conf, facts

    @abc.abstractmethod
    def stop(self):
        """Let go of what this process holds; what the host has stays as it is."""

    @abc.abstractmethod
    def apply(self, wanted, audit=False):
        """Bring the host to what it should be, and remove what is of this driver's making and not wanted.

        :param wanted: ``state.Wanted``; complete, and not to be changed.
        :param audit: look at the host afresh rather than trust what was found and done before.
        :returns: {(kind, id): None or a sentence on what is wrong}, for each document of the kinds ``networks``,
            ``ports``, ``routers`` and ``floating_ips``.
        """

    def healthy(self):
        """False if something that :meth:`apply` had started is known to have ended."""
        return True
