"""What Placement costs as the number of hosts grows, and how many claims it takes in a second."""
import uuid

import measure


def provider(number):
    """The uuid of the benchmark's provider number ``number``."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f'bench-provider-{number}'))


def _inventory(total, ratio=1.0):
    return {'total': total, 'reserved': 0, 'min_unit': 1, 'max_unit': total, 'step_size': 1, 'allocation_ratio': ratio}


def _make(target, number):
    generation = target.call('POST', 'placement', '/resource_providers', {
        'name': f'bench-provider-{number:06}', 'uuid': provider(number)})['generation']
    target.call('PUT', 'placement', f'/resource_providers/{provider(number)}/inventories', {
        'resource_provider_generation': generation,
        'inventories': {'VCPU': _inventory(64, 16.0), 'MEMORY_MB': _inventory(262144), 'DISK_GB': _inventory(4000)}})


def bench(target, recorder, sizes=(100, 1000, 10000)):
    """Measure one implementation."""
    of = ('placement', 'compute') if target.urls['placement'].endswith('/placement') else ('placement',)
    query = '/allocation_candidates?resources=VCPU:1,MEMORY_MB:512,DISK_GB:1'
    for size in sizes:
        names = target.call('GET', 'placement', '/resource_providers')['resource_providers']
        have = sum(one['name'].startswith('bench-provider-') for one in names)
        measure.together(lambda n: _make(target, n), range(have, size), 4)
        hosts = len(names) - have + size
        for limit in (1000, 10):
            measure.run(recorder, target, f'candidates of {size}, limit {limit}', of,
                        lambda _, limit=limit: target.raw('GET', 'placement', f'{query}&limit={limit}'), hosts and 4.0, at_least=5)
    owner = {'project_id': target.info['project']['id'], 'user_id': target.info['user']['id'], 'consumer_generation': None,
             'consumer_type': 'INSTANCE'}

    def claim(number):
        target.raw('PUT', 'placement', f'/allocations/{uuid.uuid4()}', {'allocations': {
            provider(number % 100): {'resources': {'VCPU': 1, 'MEMORY_MB': 16, 'DISK_GB': 1}}}, **owner})
    # Long enough that connecting and warming up don't count: a few hundred claims are a quarter of a second.
    for clients in (1, 8):
        measure.run(recorder, target, f'claims, {clients} client{"s" if clients > 1 else ""}', of, claim, clients=clients)
