import shutil

from kodiak.common import authtoken, testing, tokens


def test_a_service_follows_the_feed(cloud):
    client = cloud.admin()
    versions = []

    def fetch(since):
        answer = client.get(f'/v3/kodiak/feed?since={since}').expect(200).json
        versions.append(answer['catalog_version'])
        return answer
    feed = authtoken.Feed(fetch, interval=None)
    feed.refresh()
    assert feed.catalog[0]['type'] == 'identity'
    token = cloud.login().headers['X-Subject-Token']
    claims = tokens.verify(token, feed.public_keys())
    assert not feed.revocations.covers(claims)
    cloud.client(token).delete('/v3/auth/tokens', headers={'X-Subject-Token': token}).expect(204)
    feed.refresh()
    assert feed.revocations.covers(claims)
    assert 'catalog' not in client.get(f'/v3/kodiak/feed?since=0&catalog={versions[-1]}').json
    assert client.get(f'/v3/kodiak/feed?since={feed.sequence}').json['events'] == []
    assert client.get(f'/v3/kodiak/feed?since={feed.sequence + 99}').json['events'] != []


def test_the_feed_is_for_services(cloud):
    cloud.user('ann')
    cloud.client(cloud.login('ann', project=None)).get('/v3/kodiak/feed').expect(403)


def test_keys_rotate_without_a_failed_request(cloud):
    ring = cloud.core.ring
    before = cloud.login().headers['X-Subject-Token']
    coming = next(key_id for name, key_id in ring.listing() if name == 'next.pem')
    assert {key['id'] for key in cloud.client(before).get('/v3/kodiak/feed').json['keys']} == {before.split('.')[1], coming}
    assert ring.rotate()[0] == coming
    after = cloud.login().headers['X-Subject-Token']
    assert after.split('.')[1] == coming
    for text in (before, after):
        cloud.client(text).get('/v3/users').expect(200)
    assert ring.rotate(now=0)
    ring.purge(now=10 ** 10)
    assert len(ring.listing()) == 2
    cloud.client(before).get('/v3/users').expect(401)


def test_a_leaked_key_is_removed_at_once(cloud):
    text = cloud.login().headers['X-Subject-Token']
    cloud.client(text).get('/v3/users').expect(200)
    cloud.core.ring.remove(text.split('.')[1])
    cloud.client(text).get('/v3/users').expect(401)
    cloud.admin().get('/v3/users').expect(200)


def test_a_second_server_with_a_copy_of_the_keys(make_cloud):
    one, two = make_cloud(), make_cloud()
    shutil.rmtree(two.core.ring.path)
    shutil.copytree(one.core.ring.path, two.core.ring.path)
    text = one.login().headers['X-Subject-Token']
    testing.Client(two.pipeline, text).get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(200)
