"""What networks, subnets and ports cost."""
import time

import measure


def bench(target, recorder):
    """Measure one implementation."""
    tag, of = f'{int(time.time()):x}', ('network', 'identity')

    def network(name):
        return target.call('POST', 'network', '/v2.0/networks', {'network': {'name': f'{name}-{tag}'}})['network']['id']

    def subnet(of_network, cidr):
        target.call('POST', 'network', '/v2.0/subnets', {'subnet': {'network_id': of_network, 'ip_version': 4, 'cidr': cidr}})

    def port(of_network, name='p'):
        return target.call('POST', 'network', '/v2.0/ports', {'port': {'network_id': of_network, 'name': name}})['port']['id']
    target.call('PUT', 'network', '/v2.0/quotas/' + target.info['project']['id'], {
        'quota': {'network': -1, 'subnet': -1, 'port': -1}})
    measure.run(recorder, target, 'network create', of, lambda n: network(f'n{n}'))
    networks = iter([network(f's{n}') for n in range(60)])
    measure.run(recorder, target, 'subnet create', of, lambda _: subnet(next(networks), '10.9.0.0/24'), seconds=0, at_least=50)
    large = network('ports')
    subnet(large, '10.128.0.0/14')
    measure.run(recorder, target, 'port create', of, lambda _: port(large))
    measure.run(recorder, target, 'port create, 8 clients', of, lambda _: port(large), clients=8)
    listed = network('list')
    subnet(listed, '10.64.0.0/16')
    measure.together(lambda n: port(listed, f'l{n:04}'), range(1000), 2)
    path = f'/v2.0/ports?network_id={listed}'
    measure.run(recorder, target, 'ports, 1,000', of, lambda _: target.raw('GET', 'network', path))
    one = target.call('GET', 'network', path + '&limit=1')['ports'][0]['id']
    measure.run(recorder, target, 'port show', of, lambda _: target.raw('GET', 'network', '/v2.0/ports/' + one))
    measure.run(recorder, target, 'network show', of, lambda _: target.raw('GET', 'network', '/v2.0/networks/' + listed))
