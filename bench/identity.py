"""What identity's everyday requests cost."""
import measure


def bench(target, recorder):
    """Measure one implementation."""
    have = sum(user['name'].startswith('bench-user-') for user in target.call('GET', 'identity', '/users')['users'])
    measure.together(lambda n: target.call('POST', 'identity', '/users', {'user': {
        'name': f'bench-user-{n:05}', 'domain_id': 'default', 'email': f'u{n}@example.org'}}), range(have, 1000), 2)
    of = ('identity',)
    subject = {'X-Subject-Token': target.token}

    def by_token(_):
        target.raw('POST', 'identity', '/auth/tokens', {'auth': {
            'identity': {'methods': ['token'], 'token': {'id': target.token}},
            'scope': {'project': {'id': target.info['project']['id']}}}})
    measure.run(recorder, target, 'token by password', of,
                lambda _: target.raw('POST', 'identity', '/auth/tokens', target.login_body()))
    measure.run(recorder, target, 'token by token', of, by_token)
    measure.run(recorder, target, 'token validation', of, lambda _: target.raw('GET', 'identity', '/auth/tokens', headers=subject))
    measure.run(recorder, target, 'token validation, 8 clients', of,
                lambda _: target.raw('GET', 'identity', '/auth/tokens', headers=subject), clients=8)
    path = '/users/' + target.info['user']['id']
    measure.run(recorder, target, 'user show', of, lambda _: target.raw('GET', 'identity', path))
    measure.run(recorder, target, 'users, 1,000', of, lambda _: target.raw('GET', 'identity', '/users'))
