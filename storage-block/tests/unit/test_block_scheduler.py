"""What extra specs ask for, and how much room a back end has."""
import pytest

from kodiak.storage_block import scheduler, states
from kodiak.storage_block.scheduler import Pool

HAS = {'multiattach': True, 'vendor_name': 'Kodiak', 'volume_backend_name': 'file', 'free_capacity_gb': 50.0, 'protocol': 'iSCSI'}


@pytest.mark.parametrize('asked, fits', [
    ({}, True), ({'vendor_name': 'Kodiak'}, True), ({'vendor_name': 'kodiak'}, False),
    ({'capabilities:vendor_name': 'Kodiak'}, True),
    ({'multiattach': '<is> True'}, True), ({'capabilities:multiattach': '<is> False'}, True), ({'qos:anything': 'x'}, True),
    ({'free_capacity_gb': '>= 40'}, True), ({'free_capacity_gb': '<= 40'}, False), ({'free_capacity_gb': '== 50'}, True),
    ({'free_capacity_gb': '!= 50'}, False), ({'free_capacity_gb': '>= x'}, False), ({'protocol': '<or> NBD <or> iSCSI'}, True),
    ({'protocol': '<in> SCS'}, True), ({'protocol': 's== iSCSI'}, True), ({'protocol': 's!= iSCSI'}, False),
    ({'free_capacity_gb': '= 40'}, True), ({'free_capacity_gb': '= 60'}, False), ({'protocol': 's< j'}, True),
    ({'protocol': 's>= j'}, False), ({'protocol': 's> iSCS'}, True), ({'protocol': 's<= iSCSI'}, True),
    ({'missing': 's!= x'}, False), ({'missing': 'x'}, False)])
def test_extra_specs(asked, fits):
    assert scheduler.fits(asked, HAS) is fits


def pool(provisioned=0, **stats):
    return Pool('one@file', 'nova', {'total_gb': 100.0, 'free_gb': 60.0, **stats}, True, False, provisioned)


@pytest.mark.parametrize('given, room', [
    (pool(), 60), (pool(reserved_percentage=10), 50), (pool(thin=True, max_over_subscription_ratio=2.0), 120),
    (pool(thin=True, max_over_subscription_ratio=2.0, provisioned=150), 50), (pool(total_gb='unknown'), float('inf')),
    (pool(free_gb='infinite'), float('inf')), (pool(thin=True, max_over_subscription_ratio=20.0, free_gb=0.0), 0)])
def test_room(given, room):
    assert given.room() == room


def test_every_transient_status_leads_to_a_stable_one():
    for table, found in states.OF.items():
        for status, transient in found.items():
            assert transient.deadline > 0
            assert transient.target not in found and transient.late not in found, (table, status)
            assert states.deadline(table, status) == transient.deadline
    assert states.deadline('volumes', states.AVAILABLE) is None
