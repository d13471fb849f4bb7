"""What compute's processes ask each other: two tables, one for each direction.

Topics: conductors serve ``CONDUCTOR`` on ``compute-conductor`` (any of them answers); every agent process serves
``AGENT`` on ``compute-agent`` under its own server name (the ``agent`` of its last ``resources`` report, which is its
host's name unless it answers for many fake hosts). The console proxy asks ``CONDUCTOR`` too. All arguments and
answers are plain JSON; the shapes named here are in :mod:`kodiak.compute.agent.state`.
"""
from kodiak.common import rpc

CONDUCTOR_TOPIC = 'compute-conductor'
AGENT_TOPIC = 'compute-agent'

CONDUCTOR = rpc.Table('compute-conductor', version='1.0', calls=[
    rpc.Call('host_state', args=('hosts',), timeout=10, doc=(
        'What should be. hosts: {host: since}, since 0 asks for everything. Answers {host: HostState}; a host with '
        'no change since is left out. A host that the conductor has never seen gets an empty full state.')),
    rpc.Call('report', args=('reports',), timeout=10, doc=(
        'What is. reports: [Report]. Answers {uuid: verdict}: "ok" (taken), or "unknown" (no such instance on '
        'that host; the agent stops reporting it).')),
    rpc.Call('resources', args=('resources',), timeout=10, doc=(
        'What hosts offer. resources: [Resources]. Sent at start, when it changes, and once a minute as a sign of '
        'life. Answers {}.')),
    rpc.Call('alive', args=('host', 'binary', 'version', 'started_at'), timeout=10, doc=(
        'The sign of life of a process without a database that serves no host (the console proxy), every ten seconds. '
        'Answers {}.')),
    rpc.Call('unwanted', args=('host', 'uuids'), timeout=10, doc=(
        'Which of these instances, found on the host and not in its full state, may be removed with their disks. '
        'Answers a list of uuids: only those whose row says that they were deleted. One that has no row, or is said to be '
        'elsewhere, may be all that is left of a server after a database came back from a backup.')),
    rpc.Call('console_token', args=('token',), timeout=10, doc=(
        'Redeem a console token. Answers {instance_uuid, console_type, host, port, path, password} once for a VNC '
        'token that has not expired, None otherwise; serial tokens stay good until they expire.')),
])

AGENT = rpc.Table('compute-agent', version='1.0', calls=[
    rpc.Call('console_output', args=('host', 'uuid', 'length'), timeout=20, doc=(
        'The last length bytes of the serial log as text (lines are cut by the API); None asks for all that is '
        'kept. Empty where the guest never started.')),
    rpc.Call('console_address', args=('host', 'uuid', 'kind'), timeout=20, doc=(
        'Where the console of kind "vnc" or "serial" listens: ConsoleAddress, or None where the guest has none now.')),
    rpc.Call('diagnostics', args=('host', 'uuid'), timeout=20, doc=(
        "Counters of a running guest, in the fields of the compute API's 2.48 diagnostics.")),
], casts=[
    rpc.Cast('look', args=('hosts',), doc='The desired state of these hosts changed: look now. Only a hint.'),
    rpc.Cast('fetch_images', args=('host', 'images'), doc=(
        'Have the data of these images ([Image]) on the host before servers need them. Where this is lost, the first server '
        'fetches its image.')),
])
