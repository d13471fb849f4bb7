"""What the processes of network ask each other.

The agent of a host asks the conductor what the host should have, and tells what came of it; the conductor
only hints to agents that it is worth asking. ``kodiak.network.agent.state`` gives the shape of the answers.
"""
from kodiak.common import rpc

CONDUCTOR_TOPIC = 'network-conductor'
AGENT_TOPIC = 'network-agent'

CONDUCTOR = rpc.Table('network-conductor', version='1.0', calls=[
    rpc.Call('host_state', args=('host', 'since', 'agent'), timeout=15, doc=(
        'What host should have, as far as it changed since generation ``since`` (None: everything). ``agent`` is what '
        'the agent says of itself (state.AgentFacts as a dict); the call is the heartbeat of the agent too. '
        'Returns a state.Answer as a dict.')),
    rpc.Call('report', args=('host', 'results'), timeout=30, doc=(
        'What came of documents: a list of state.Result as dicts, at most 500. A result for a generation that is no '
        'longer the current one of its document is ignored. Returns None.')),
])

AGENT = rpc.Table('network-agent', version='1.0', casts=[
    rpc.Cast('look', args=('generation',), doc=(
        'The wanted state of the receiving host has reached ``generation``: ask for it now rather than at the next '
        'interval. Losing this message delays and loses nothing.')),
])
