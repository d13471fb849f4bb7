"""What the proxy makes of an account's headers, and the quota of a policy."""
import types

from kodiak.storage_object.middleware.quotas import AccountQuotas
from kodiak.storage_object.proxy.http import HeaderDict
from kodiak.storage_object.proxy.info import Info, _facts


def test_the_usage_of_each_policy():
    headers = HeaderDict({'X-Account-Storage-Policy-Gold-Object-Count': '2', 'X-Account-Storage-Policy-Gold-Bytes-Used': '30',
                          'X-Account-Storage-Policy-Old-Tape-Bytes-Used': '7', 'X-Account-Storage-Policy-Gold-Container-Count': '9',
                          'X-Account-Bytes-Used': '37'})
    info = _facts(204, headers, 'account')
    assert info['policies'] == {'gold': (2, 30), 'old-tape': (0, 7)}
    assert (info['bytes'], _facts(204, headers, 'container')['policies']) == (37, {})


def test_the_quota_of_a_policy_is_of_its_containers_alone():
    policies = {0: types.SimpleNamespace(name='Gold'), 1: types.SimpleNamespace(name='silver')}
    infos = types.SimpleNamespace(get=lambda request, account, container: {'policy': int(container)})
    proxy = types.SimpleNamespace(infos=infos, rings=types.SimpleNamespace(policies=policies))
    info = Info(policies={'silver': (3, 8)})

    def past(quotas, container, size):
        return AccountQuotas._past_policy(None, proxy, info, quotas, 'a', container, size)
    assert past({'bytes-policy-1': 10}, '1', 3) and not past({'bytes-policy-1': 10}, '1', 2)
    assert not past({'bytes-policy-1': 10}, '0', 100)
    assert past({'count-policy-1': 3}, '1', 0) and not past({'count-policy-1': 4}, '1', 0)
    assert not past({'bytes': 1}, '1', 100)
