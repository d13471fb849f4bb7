import os

import pytest
import yaml
from oslo_policy import policy as oslo_policy

from kodiak.common import config, context, errors, policy

MEMBER = {'roles': ['member', 'reader'], 'project_id': 'p', 'user_id': 'u', 'system_scope': None}
RULES = [
    ('anybody', '@', ''), ('nobody', '!', ''), ('admin', policy.ADMIN, ''), ('member', policy.PROJECT_MEMBER, ''),
    ('owner', policy.OWNER, ''), ('nested', 'rule:member and not role:admin', ''), ('system', 'system_scope:all', ''),
    ('literal', "'x':%(kind)s", ''), ('empty', '', ''),
]


@pytest.fixture
def enforcer(tmp_path):
    path = tmp_path / 'policy.yaml'
    path.write_text('{}')
    conf = config.load('test', files=[])
    conf.set_override('policy_file', str(path), group='oslo_policy')
    made = policy.Enforcer(conf, RULES)
    made.path = path
    return made


@pytest.mark.parametrize('target', [{'project_id': 'p', 'user_id': 'x'}, {'project_id': 'q', 'user_id': 'u'}, {},
                                    {'kind': 'x'}, {'project_id': None}])
@pytest.mark.parametrize('creds', [MEMBER, {**MEMBER, 'roles': ['admin']}, {**MEMBER, 'roles': []},
                                   {**MEMBER, 'system_scope': 'all'}])
@pytest.mark.parametrize('rule', [name for name, _, _ in RULES])
def test_the_compiled_rule_says_what_oslo_policy_says(enforcer, rule, creds, target):
    enforcer.check(rule)
    theirs = oslo_policy._checks._check(enforcer._enforcer.rules[rule], target, creds, enforcer._enforcer, rule)
    assert enforcer.allows(rule, creds, target) is bool(theirs)


def test_no_project_is_not_the_same_as_no_project(enforcer):
    assert not enforcer.allows('member', {**MEMBER, 'project_id': None}, {'project_id': None})


@pytest.mark.parametrize(('scope', 'ids'), [
    ('project', {'project_id': 'p'}), ('domain', {'domain_id': 'd'}), ('system', {'system_scope': 'all'}), ('none', {})])
def test_rules_know_what_a_token_is_for(enforcer, scope, ids):
    ctx = context.Context(user_id='u', roles=['admin'], **ids)
    enforcer.add([('scoped', f'scope:{scope}', ''), ('other', f'role:admin and not scope:{scope}', '')])
    assert enforcer.allows('scoped', ctx, {}) and not enforcer.allows('other', ctx, {})


def test_a_rule_that_is_not_there_says_no(enforcer):
    assert not enforcer.allows('unheard:of', MEMBER)
    with pytest.raises(errors.PolicyForbidden, match='unheard:of'):
        enforcer.enforce('unheard:of', MEMBER)


def test_the_file_overrides_and_is_read_again(enforcer):
    assert not enforcer.allows('admin', MEMBER)
    enforcer.path.write_text(yaml.safe_dump({'admin': 'role:member'}))
    os.utime(enforcer.path, (4e9, 4e9))
    enforcer.reload()
    assert enforcer.allows('admin', MEMBER)
