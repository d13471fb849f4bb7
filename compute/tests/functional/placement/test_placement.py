import threading
import uuid

import pytest
import sqlalchemy as sa

from kodiak.common import db, testing
from kodiak.compute import models, placement

VCPU = {'total': 8, 'max_unit': 8, 'allocation_ratio': 2.0}
MEMORY = {'total': 4096, 'reserved': 512}


def new_uuid():
    return str(uuid.uuid4())


def make(admin, name, inventories=None, parent=None, traits=(), aggregates=()):
    body = {'name': name, **({'parent_provider_uuid': parent} if parent else {})}
    provider = admin.post('/resource_providers', body).expect(200).json
    path, generation = '/resource_providers/' + provider['uuid'], provider['generation']
    if inventories:
        generation = admin.put(path + '/inventories', {'resource_provider_generation': generation, 'inventories': inventories}
                               ).expect(200).json['resource_provider_generation']
    if traits:
        generation = admin.put(path + '/traits', {'resource_provider_generation': generation, 'traits': list(traits)}
                               ).expect(200).json['resource_provider_generation']
    if aggregates:
        admin.put(path + '/aggregates', {'resource_provider_generation': generation, 'aggregates': list(aggregates)}).expect(200)
    return provider['uuid']


def claim(admin, provider, resources, consumer=None, generation=None):
    consumer = consumer or new_uuid()
    answer = admin.put('/allocations/' + consumer, {
        'allocations': {provider: {'resources': resources}} if resources else {}, 'project_id': 'p', 'user_id': 'u',
        'consumer_generation': generation, 'consumer_type': 'INSTANCE'})
    return consumer, answer


def chosen(answer):
    return [set(request['allocations']) for request in answer.expect(200).json['allocation_requests']]


def test_a_provider_its_inventory_and_a_claim(admin):
    host = make(admin, 'h1', {'VCPU': VCPU, 'MEMORY_MB': MEMORY})
    consumer, answer = claim(admin, host, {'VCPU': 3, 'MEMORY_MB': 1024})
    answer.expect(204)
    assert admin.get(f'/resource_providers/{host}/usages').json['usages'] == {'MEMORY_MB': 1024, 'VCPU': 3}
    shown = admin.get('/allocations/' + consumer).json
    assert shown['allocations'][host]['resources'] == {'VCPU': 3, 'MEMORY_MB': 1024} and shown['consumer_generation'] == 1
    claim(admin, host, {'VCPU': 1}, consumer, 7)[1].expect(409)
    claim(admin, host, {'VCPU': 1}, consumer, 1)[1].expect(204)
    assert admin.get('/usages?project_id=p').json['usages'] == {'INSTANCE': {'VCPU': 1, 'consumer_count': 1}}
    admin.delete('/resource_providers/' + host).expect(409)
    admin.delete('/allocations/' + consumer).expect(204)
    admin.delete('/allocations/' + consumer).expect(404)
    admin.delete('/resource_providers/' + host).expect(204)


def test_what_exceeds_capacity_or_breaks_the_units_is_refused(admin):
    host = make(admin, 'h1', {'VCPU': {**VCPU, 'step_size': 2}, 'MEMORY_MB': MEMORY})
    assert 'exceed the capacity' in claim(admin, host, {'MEMORY_MB': 3585})[1].expect(409).json['errors'][0]['detail']
    claim(admin, host, {'VCPU': 3})[1].expect(409)
    claim(admin, host, {'VCPU': 10})[1].expect(409)
    claim(admin, host, {'DISK_GB': 1})[1].expect(409)
    claim(admin, host, {'NONSENSE': 1})[1].expect(400)
    claim(admin, new_uuid(), {'VCPU': 2})[1].expect(400)
    assert set(admin.get(f'/resource_providers/{host}/usages').json['usages'].values()) == {0}


def test_an_old_generation_is_told_so(admin):
    host = make(admin, 'h1', {'VCPU': VCPU})
    body = {'resource_provider_generation': 0, 'inventories': {'VCPU': VCPU}}
    answer = admin.put(f'/resource_providers/{host}/inventories', body).expect(409)
    assert answer.json['errors'][0]['code'] == 'placement.concurrent_update'


def test_candidates_of_flat_hosts(admin, service):
    first = make(admin, 'h1', {'VCPU': VCPU, 'MEMORY_MB': MEMORY}, traits=['HW_CPU_X86_AVX2'])
    second = make(admin, 'h2', {'VCPU': VCPU, 'MEMORY_MB': {'total': 100}})
    assert chosen(admin.get('/allocation_candidates?resources=VCPU:1')) == [{first}, {second}]
    answer = admin.get('/allocation_candidates?resources=VCPU:1,MEMORY_MB:200')
    assert chosen(answer) == [{first}]
    assert answer.json['provider_summaries'] == {first: {
        'resources': {'MEMORY_MB': {'capacity': 3584, 'used': 0}, 'VCPU': {'capacity': 16, 'used': 0}},
        'traits': ['HW_CPU_X86_AVX2'], 'parent_provider_uuid': None, 'root_provider_uuid': first}}
    assert answer.json['allocation_requests'][0]['mappings'] == {'': [first]}
    assert chosen(admin.get('/allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_AVX2')) == [{first}]
    assert chosen(admin.get('/allocation_candidates?resources=VCPU:1&required=!HW_CPU_X86_AVX2')) == [{second}]
    assert len(chosen(admin.get('/allocation_candidates?resources=VCPU:1&limit=1'))) == 1
    with db.count_queries() as queries:
        admin.get('/allocation_candidates?resources=VCPU:1,MEMORY_MB:200&limit=1').expect(200)
    assert len(queries) == 2
    for bad in ('', '?resources=VCPU', '?resources=VCPU:0', '?resources=NO:1', '?resources=VCPU:1&required=NO_SUCH',
                '?resources=VCPU:1&limit=0', '?resources=VCPU:1&x=y', '?resources1=VCPU:1&resources2=VCPU:1'):
        admin.get('/allocation_candidates' + bad).expect(400)


def test_candidates_among_trees_sharing_and_granular_groups(admin):
    pool = new_uuid()
    host = make(admin, 'h1', {'MEMORY_MB': MEMORY}, aggregates=[pool])
    numa = [make(admin, 'numa0', {'VCPU': VCPU}, parent=host)]
    admin.put('/traits/CUSTOM_FAST').expect(201)
    numa.append(make(admin, 'numa1', {'VCPU': VCPU}, parent=host, traits=['CUSTOM_FAST']))
    share = make(admin, 'nfs', {'DISK_GB': {'total': 1000}}, traits=['MISC_SHARES_VIA_AGGREGATE'], aggregates=[pool])
    answer = admin.get('/allocation_candidates?resources=VCPU:1,MEMORY_MB:128,DISK_GB:5')
    assert chosen(answer) == [{host, numa[0], share}, {host, numa[1], share}]
    assert chosen(admin.get('/allocation_candidates?resources=MEMORY_MB:128&resources_A=VCPU:1&required_A=CUSTOM_FAST')) == [
        {host, numa[1]}]
    both = '/allocation_candidates?resources1=VCPU:1&resources2=VCPU:1&group_policy='
    assert len(chosen(admin.get(both + 'none'))) == 4 and len(chosen(admin.get(both + 'isolate'))) == 2
    assert chosen(admin.get(f'/allocation_candidates?resources=VCPU:1&in_tree={share}')) == []
    assert chosen(admin.get('/allocation_candidates?resources1=VCPU:1&resources2=VCPU:1&group_policy=none&same_subtree=1,2')) == [
        {numa[0]}, {numa[1]}]


def test_reshape_moves_inventory_and_allocations_together(admin):
    host = make(admin, 'h1', {'VCPU': VCPU, 'MEMORY_MB': MEMORY})
    child = make(admin, 'numa', parent=host)
    consumer, answer = claim(admin, host, {'VCPU': 2, 'MEMORY_MB': 64})
    answer.expect(204)
    generation = admin.get('/resource_providers/' + host).json['generation']
    admin.post('/reshaper', {
        'inventories': {host: {'resource_provider_generation': generation, 'inventories': {'MEMORY_MB': MEMORY}},
                        child: {'resource_provider_generation': 0, 'inventories': {'VCPU': VCPU}}},
        'allocations': {consumer: {'allocations': {host: {'resources': {'MEMORY_MB': 64}}, child: {'resources': {'VCPU': 2}}},
                                   'project_id': 'p', 'user_id': 'u', 'consumer_generation': 1, 'consumer_type': 'INSTANCE'}},
    }).expect(204)
    assert admin.get(f'/resource_providers/{child}/usages').json['usages'] == {'VCPU': 2}
    assert admin.get(f'/resource_providers/{host}/usages').json['usages'] == {'MEMORY_MB': 64}


def test_claims_at_once_never_take_more_than_there_is(service, admin):
    host = make(admin, 'h1', {'VCPU': {'total': 20}})
    won, lock = [], threading.Lock()

    def work():
        for _ in range(6):
            consumer = new_uuid()
            try:
                service.db.transact(placement.claim, consumer, {host: {'VCPU': 1}}, 'p', 'u')
                with lock:
                    won.append(consumer)
            except placement.NoCapacity:
                pass
    threads = [threading.Thread(target=work) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(won) == 20
    for consumer in won[:5]:
        service.db.transact(placement.release, consumer)
    tables = models.placement
    with service.db.read() as connection:
        used = connection.execute(sa.select(tables.inventories.c.used)).scalar()
        assert used == connection.execute(sa.select(sa.func.sum(tables.allocations.c.used))).scalar() == 15


def test_a_refusal_says_what_is_missing(service, admin):
    make(admin, 'small', {'VCPU': VCPU, 'MEMORY_MB': {'total': 100}})
    make(admin, 'large', {'VCPU': VCPU, 'MEMORY_MB': MEMORY})
    with service.db.read() as connection:
        assert placement.candidates(connection, {'VCPU': 1, 'MEMORY_MB': 9000}) == []
        said = placement.explain(connection, {'VCPU': 1, 'MEMORY_MB': 9000})
        assert said == 'Of 2 hosts, 2 lack MEMORY_MB. The nearest, large, lacks MEMORY_MB: 3584 free of 9000 wanted.'
        assert 'required trait' in placement.explain(connection, {'VCPU': 1}, required=['HW_CPU_X86_AVX2'])


def test_a_host_is_brought_to_what_its_agent_reports(service, admin):
    uuid_ = new_uuid()
    report = {'VCPU': {'total': 4}, 'MEMORY_MB': {'total': 1000}}
    service.db.transact(placement.ensure_host, uuid_, 'node1', report, ['HW_CPU_X86_AVX2', 'NOT_A_TRAIT'])
    before = admin.get('/resource_providers/' + uuid_).json['generation']
    service.db.transact(placement.ensure_host, uuid_, 'node1', report, ['HW_CPU_X86_AVX2'])
    assert admin.get('/resource_providers/' + uuid_).json['generation'] == before
    claim(admin, uuid_, {'VCPU': 1})[1].expect(204)
    service.db.transact(placement.ensure_host, uuid_, 'node1', {'MEMORY_MB': {'total': 2000}})
    assert set(admin.get(f'/resource_providers/{uuid_}/inventories').json['inventories']) == {'MEMORY_MB', 'VCPU'}


def test_aggregates_bind_groups_and_old_versions_see_single_providers(admin, as_):
    aggregate = new_uuid()
    host = make(admin, 'h1', {'MEMORY_MB': MEMORY}, aggregates=[aggregate])
    numa = [make(admin, f'numa{index}', {'VCPU': VCPU}, parent=host, traits=['HW_CPU_X86_AVX']) for index in range(2)]
    path = '/allocation_candidates?'
    # The root's aggregates are those of the whole tree for the group without a suffix, and nobody else's.
    assert len(chosen(admin.get(f'{path}resources=VCPU:1&member_of={aggregate}'))) == 2
    assert chosen(admin.get(f'{path}resources1=VCPU:1&member_of1={aggregate}')) == []
    old = as_(testing.ADMIN, '1.28')
    assert {provider for found in chosen(old.get(path + 'resources=VCPU:1')) for provider in found} == set(numa)
    assert chosen(old.get(path + 'resources=VCPU:1,MEMORY_MB:64')) == []
    isolated = path + 'resources1=VCPU:1&required2=HW_CPU_X86_AVX&group_policy=isolate&same_subtree=1,2'
    assert chosen(admin.get(isolated)) == []
    admin.get(path + 'resources=VCPU:1&root_required=HW_CPU_X86_AVX&root_required=HW_CPU_X86_SSE').expect(400)
    assert len(chosen(admin.get(path + 'resources=VCPU:1%20&required=%20HW_CPU_X86_AVX'))) == 2


def test_administrators_of_the_system_manage_no_resources(as_):
    system = testing.Persona('7' * 32, None, ('admin', 'member', 'reader'), system=True)
    as_(system).get('/resource_providers').expect(403)
    as_(system).post('/resource_providers', {'name': 'x'}).expect(403)
    as_(system).get('/usages?project_id=p').expect(403)


@pytest.mark.parametrize('version,code', [('1.40', 406), ('2.0', 406), ('x', 400)])
def test_versions_outside_the_range(as_, version, code):
    as_(testing.ADMIN, version).get('/resource_providers').expect(code)


def test_every_route_as_every_persona(service, as_):
    provider = make(as_(testing.ADMIN), 'h1')
    table = testing.check_personas(service.api, lambda persona: as_(persona, None), {'uuid': provider, 'provider_uuid': provider})
    assert all(row['member'] in (403, 404, 400) for key, row in table.items() if row and 'usages' not in key[1])
