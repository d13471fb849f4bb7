import pytest

from kodiak.common import errors
from kodiak.identity import mapping

ANN = {'OIDC-sub': 'ann', 'OIDC-email': 'ann@example.org', 'OIDC-groups': 'staff;admins;guests', 'REMOTE_USER': 'ann@issuer'}


def who(local, remote, assertion=ANN):
    return mapping.apply([{'local': local, 'remote': remote}], assertion)


def test_placeholders_stand_for_what_was_found():
    found = who([{'user': {'id': '{0}', 'name': 'x-{0}', 'email': '{1}'}}], [{'type': 'OIDC-sub'}, {'type': 'OIDC-email'}])
    assert found.user == {'id': 'ann', 'name': 'x-ann', 'email': 'ann@example.org'}


def test_conditions_have_no_placeholder():
    remote = [{'type': 'OIDC-groups', 'any_one_of': ['staff']}, {'type': 'OIDC-email', 'not_any_of': ['x@y']}, {'type': 'OIDC-sub'}]
    assert who([{'user': {'name': '{0}'}}], remote).user['name'] == 'ann'


@pytest.mark.parametrize('requirement, fits', [
    ({'type': 'OIDC-groups', 'any_one_of': ['admins']}, True), ({'type': 'OIDC-groups', 'any_one_of': ['root']}, False),
    ({'type': 'OIDC-groups', 'not_any_of': ['admins']}, False), ({'type': 'OIDC-groups', 'not_any_of': ['root']}, True),
    ({'type': 'OIDC-email', 'any_one_of': ['@example.org$'], 'regex': True}, True), ({'type': 'nothing'}, False),
    ({'type': 'OIDC-email', 'any_one_of': ['example.org$']}, False),
    ({'type': 'OIDC-email', 'not_any_of': [r'.*@example\.org'], 'regex': True}, False)])
def test_requirements(requirement, fits):
    local = [{'user': {'name': 'someone'}}]
    if fits:
        assert who(local, [requirement]).user['name'] == 'someone'
    else:
        with pytest.raises(errors.Unauthorized):
            who(local, [requirement])


@pytest.mark.parametrize('condition, names', [
    ({}, ['staff', 'admins', 'guests']), ({'whitelist': ['staff', 'other']}, ['staff']),
    ({'blacklist': ['staff']}, ['admins', 'guests']),
    ({'whitelist': ['^(staff|admins)$'], 'regex': True}, ['staff', 'admins']), ({'blacklist': ['s$'], 'regex': True}, ['staff'])])
def test_groups_by_name(condition, names):
    local = [{'user': {'name': '{0}'}}, {'groups': '{1}', 'domain': {'name': 'D'}}]
    found = who(local, [{'type': 'OIDC-sub'}, {'type': 'OIDC-groups', **condition}])
    assert found.group_names == [(name, {'name': 'D'}) for name in names]


def test_all_rules_that_fit_add_up_and_the_first_names_the_user():
    rules = [
        {'local': [{'user': {'name': '{0}'}}, {'group': {'id': 'g1'}}], 'remote': [{'type': 'OIDC-sub'}]},
        {'local': [{'user': {'name': 'other'}}, {'group': {'name': 'g2', 'domain': {'id': 'd'}}}],
         'remote': [{'type': 'OIDC-groups', 'any_one_of': ['staff']}]},
        {'local': [{'group': {'id': 'g3'}}], 'remote': [{'type': 'OIDC-groups', 'any_one_of': ['nobody']}]}]
    found = mapping.apply(rules, ANN)
    assert found.user == {'name': 'ann'} and found.group_ids == ['g1'] and found.group_names == [('g2', {'id': 'd'})]


def test_projects_and_the_server_supplied_name():
    found = who([{'projects': [{'name': 'p-{0}', 'roles': [{'name': 'member'}]}]}], [{'type': 'OIDC-sub'}])
    assert found.user == {'name': 'ann@issuer'} and found.projects == [{'name': 'p-ann', 'roles': [{'name': 'member'}]}]
    with pytest.raises(errors.Unauthorized):
        who([{'group_ids': '{0}'}], [{'type': 'OIDC-sub'}], {'OIDC-sub': 'x'})


@pytest.mark.parametrize('rules', [
    [], [{}], [{'local': [], 'remote': []}], 'x', [{'local': [{'user': {'name': '{1}'}}], 'remote': [{'type': 'a'}]}],
    [{'local': [{'user': {'name': '{0}'}}], 'remote': [{'type': 'a', 'any_one_of': ['x']}]}],
    [{'local': [{'user': {}}], 'remote': [{'type': 'a', 'any_one_of': ['x'], 'whitelist': ['y']}]}],
    [{'local': [{'user': {}}], 'remote': [{'type': 'a', 'any_one_of': ['('], 'regex': True}]}],
    [{'local': [{'nothing': 1}], 'remote': [{'type': 'a'}]}], [{'local': [{'user': {'name': '{}'}}], 'remote': [{'type': 'a'}]}]])
def test_bad_rules(rules):
    with pytest.raises(errors.BadRequest):
        mapping.validate(rules)
