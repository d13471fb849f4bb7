"""DSCP marks: what a guest sends carries the mark of its policy, whatever it wrote there itself."""
from kodiak.network.agent import names
from kodiak.network.agent.nft import Chain, Set, Table

MARKS = 'bridge kodiak-marks'
HOOK = 'type filter hook prerouting priority -290; policy accept;'      # what the guard drops needs none


def plan(wanted, bridges):
    """{title: Table}; none where no port has a mark."""
    taps = {}
    for key, port in wanted.ports.items():
        if port.qos is not None and port.qos.dscp is not None and port.network_id in bridges:
            taps.setdefault(port.qos.dscp, []).append(names.tap(key))
    if not taps:
        return {}
    sets, rules = {}, []
    for mark, found in sorted(taps.items()):
        sets[f'dscp-{mark}'] = Set('ifname', elements=dict.fromkeys(sorted(found), ''))
        rules += [f'iifname @dscp-{mark} ether type {kind} {kind} dscp set {mark}' for kind in ('ip', 'ip6')]
    return {MARKS: Table('bridge', 'kodiak-marks', sets, {'sending': Chain(tuple(rules), HOOK)})}
