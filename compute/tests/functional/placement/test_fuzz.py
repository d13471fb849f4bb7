"""Every operation with requests that fit the OpenAPI document and others that don't: no answer of 500, none outside its schema."""

import itertools
import uuid

import hypothesis.strategies as st
import pytest

from kodiak.common import fuzz_testing, testing

_TEXT = st.text(max_size=40)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(2**70), st.floats(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)
_CLASS = st.one_of(st.sampled_from(['VCPU', 'MEMORY_MB', 'CUSTOM_A', 'CUSTOM_NONE', 'vcpu', '']), _TEXT)
_AMOUNT = st.one_of(st.integers(-1, 100), st.sampled_from([2**31, 2**70, True, 1.5, '3']))
_INVENTORY = st.fixed_dictionaries(
    {},
    optional={
        'total': _AMOUNT,
        'reserved': _AMOUNT,
        'min_unit': _AMOUNT,
        'max_unit': _AMOUNT,
        'step_size': _AMOUNT,
        'allocation_ratio': st.one_of(st.floats(), _AMOUNT, st.just('x')),
    },
)


class World:
    """What exists."""

    def __init__(self, admin):
        self.admin, self.number = admin, itertools.count()
        self.provider, self.consumer = self.new_provider(), str(uuid.uuid4())
        self.admin.put('/resource_classes/CUSTOM_A').expect(201)

    def new_provider(self):
        """A provider with room."""
        made = self.admin.post('/resource_providers', {'name': f'p{next(self.number)}'}).expect(200).json['uuid']
        self.admin.put(
            f'/resource_providers/{made}/inventories',
            {'resource_provider_generation': 0, 'inventories': {'VCPU': {'total': 8}, 'MEMORY_MB': {'total': 1000}}},
        ).expect(200)
        return made

    def values(self, path, names):
        """What exists for the parameters of a path."""
        found = {'resource_class': ['VCPU', 'CUSTOM_A'], 'name': ['HW_CPU_X86_AVX', 'CUSTOM_T', 'VCPU', 'CUSTOM_B']}
        for name in names - found.keys():
            found[name] = [self.new_provider() if 'consumer' not in name else self.consumer]
        self.admin.put('/traits/CUSTOM_T')
        self.admin.put('/resource_classes/CUSTOM_B')
        return found

    def bodies(self):
        """Bodies that mean something, with parts that don't."""
        provider = st.one_of(st.sampled_from([self.provider, str(uuid.uuid4())]), _TEXT)
        resources = st.dictionaries(_CLASS, _AMOUNT, max_size=3)
        allocation = st.fixed_dictionaries(
            {
                'allocations': st.dictionaries(provider, st.fixed_dictionaries({'resources': resources}), max_size=2),
                'project_id': st.just('p'),
                'user_id': st.just('u'),
            },
            optional={
                'consumer_generation': st.one_of(st.none(), _AMOUNT),
                'consumer_type': st.sampled_from(['INSTANCE', 'x', 'unknown']),
                'mappings': st.dictionaries(_TEXT, st.lists(provider, max_size=2), max_size=2),
            },
        )
        inventories = st.fixed_dictionaries(
            {'resource_provider_generation': st.integers(0, 2), 'inventories': st.dictionaries(_CLASS, _INVENTORY, max_size=3)}
        )
        at = '/placement/resource_providers/{uuid}/'
        return {
            ('POST', '/placement/resource_providers'): st.fixed_dictionaries(
                {'name': _TEXT}, optional={'uuid': provider, 'parent_provider_uuid': st.one_of(st.none(), provider)}
            ),
            ('PUT', '/placement/resource_providers/{uuid}'): st.fixed_dictionaries(
                {'name': _TEXT}, optional={'parent_provider_uuid': provider}
            ),
            ('PUT', at + 'inventories'): inventories,
            ('POST', at + 'inventories'): st.one_of(_JSON, inventories),
            ('PUT', at + 'traits'): st.fixed_dictionaries(
                {
                    'resource_provider_generation': st.integers(0, 2),
                    'traits': st.lists(
                        st.one_of(st.sampled_from(['HW_CPU_X86_AVX', 'CUSTOM_T', 'CUSTOM_NONE']), _TEXT), max_size=3
                    ),
                }
            ),
            ('PUT', at + 'aggregates'): st.fixed_dictionaries(
                {'resource_provider_generation': st.integers(0, 2), 'aggregates': st.lists(provider, max_size=3)}
            ),
            ('PUT', '/placement/allocations/{consumer}'): allocation,
            ('POST', '/placement/allocations'): st.dictionaries(st.one_of(st.just(self.consumer), _TEXT), allocation, max_size=2),
            ('POST', '/placement/reshaper'): st.fixed_dictionaries(
                {
                    'inventories': st.dictionaries(provider, inventories, max_size=2),
                    'allocations': st.dictionaries(st.just(self.consumer), allocation, max_size=1),
                }
            ),
        }


@pytest.mark.parametrize('version', ['1.39', '1.0'])
def test_no_request_breaks_the_api(service, admin, version):
    world = World(admin)
    found = fuzz_testing.run(
        fuzz_testing.mounted(service.pipeline, '/placement'),
        service.identity.token(testing.ADMIN),
        world.values,
        world.bodies(),
        sent={'OpenStack-API-Version': 'placement ' + version},
    )
    assert not found, '\n\n'.join(found)
