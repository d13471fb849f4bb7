"""The wanted state: documents in and out of JSON, and deltas."""
import json

from kodiak.network.agent import state


def _port(key, **values):
    return state.Port(id=key, network_id='n', mac='fa:16:3e:00:00:01', **values)


def test_documents_survive_json():
    network = state.Network('n', subnets=(state.Subnet('s', '10.0.0.0/24', dns_nameservers=('9.9.9.9',)),),
                            dhcp=state.Dhcp('p', 'fa:16:3e:00:00:02', (state.FixedIP('s', '10.0.0.2'),)))
    leg = state.RouterLeg('g', 'n', 'fa:16:3e:00:00:03', (state.FixedIP('s', '10.0.0.9'),))
    router = state.Router('r', gateway=leg, legs=(leg,))
    for document in (network, router):
        assert state.load(type(document), json.loads(json.dumps(state.dump(document)))) == document


def test_unknown_fields_are_ignored():
    assert state.load(state.FixedIP, {'subnet_id': 's', 'address': '10.0.0.1', 'colour': 'blue'}).address == '10.0.0.1'


def test_delta_and_full():
    wanted = state.Wanted()
    first = state.Answer(7, full=True, set={'ports': [state.dump(_port('a')), state.dump(_port('b'))]})
    assert wanted.apply(state.dump(first)) == {('ports', 'a'), ('ports', 'b')}
    assert wanted.apply(state.dump(state.Answer(7))) == set()
    delta = state.Answer(9, set={'ports': [state.dump(_port('b', generation=2))]}, gone={'ports': ['a', 'unheard of']})
    assert wanted.apply(state.dump(delta)) == {('ports', 'a'), ('ports', 'b')}
    assert wanted.generation == 9
    assert wanted.ports.keys() == {'b'}
    again = state.Answer(10, full=True, set={'ports': [state.dump(_port('b', generation=2)), state.dump(_port('c'))]})
    assert wanted.apply(state.dump(again)) == {('ports', 'c')}
    assert wanted.apply(state.dump(state.Answer(11, full=True))) == {('ports', 'b'), ('ports', 'c')}
