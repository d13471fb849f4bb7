import time

import pytest

from kodiak.common import tokens

CLAIMS = {
    'user': ['u1', 'Zoë', 'default', 'Default', None], 'scope': ['p', 'p1', 'demo', 'default', 'Default', False],
    'roles': [['r1', 'member']], 'methods': ['password'], 'audit_ids': ['a1', 'a0'], 'issued': 1000.0,
}


def signed(**changes):
    key_id, pem, public = tokens.new_key()
    claims = tokens.Claims(**{**CLAIMS, 'expires': time.time() + 60, **changes})
    return tokens.sign(claims, key_id, tokens.load_private(pem)), {key_id: tokens.load_public(public)}


def test_a_token_says_what_was_signed_and_is_short():
    text, keys = signed()
    assert len(text) < 600
    claims = tokens.verify(text, keys)
    assert claims.user == CLAIMS['user'] and claims.project_id == 'p1' and claims.audit_chain_id == 'a0'


def test_what_was_changed_expired_or_signed_by_another_is_refused():
    text, keys = signed()
    with pytest.raises(tokens.InvalidToken):
        tokens.verify(text[:-4] + 'AAAA', keys)
    with pytest.raises(tokens.UnknownKey):
        tokens.verify(text, {})
    _, others = signed()
    with pytest.raises(tokens.InvalidToken):
        tokens.verify(text, {next(iter(keys)): next(iter(others.values()))})
    expired, keys = signed(expires=time.time() - 1)
    with pytest.raises(tokens.InvalidToken):
        tokens.verify(expired, keys)
    for rubbish in ('', 'kd1.', 'kd1.a.b.c', 'gAAAAAB', 'kd1.' + 'x' * 9000):
        with pytest.raises(tokens.InvalidToken):
            tokens.verify(rubbish, keys)


@pytest.mark.parametrize('event,covered', [
    ({'user_id': 'u1'}, True), ({'user_id': 'u2'}, False), ({'audit_id': 'a1'}, True), ({'audit_chain_id': 'a0'}, True),
    ({'user_id': 'u1', 'project_id': 'p1'}, True), ({'user_id': 'u1', 'project_id': 'p2'}, False),
    ({'role_id': 'r1'}, True), ({'role_id': 'r2'}, False), ({'user_domain_id': 'default'}, True), ({'key_id': 'k'}, True),
    ({'project_domain_id': 'default'}, True), ({'project_domain_id': 'other'}, False)])
def test_an_event_covers_a_token_when_all_its_conditions_hold(event, covered):
    claims = tokens.Claims(**CLAIMS, expires=0)
    assert tokens.Revocations([{'issued_before': 1000.0, **event}]).covers(claims, 'k') is covered
    assert not tokens.Revocations([{'issued_before': 999.0, **event}]).covers(claims, 'k')


def test_events_are_forgotten_when_they_have_expired():
    claims = tokens.Claims(**CLAIMS, expires=0)
    revocations = tokens.Revocations([{'issued_before': 1000.0, 'user_id': 'u1', 'expires_at': 2000.0}])
    revocations.prune(1999.0)
    assert revocations.covers(claims)
    revocations.prune(2001.0)
    assert not revocations.covers(claims)
