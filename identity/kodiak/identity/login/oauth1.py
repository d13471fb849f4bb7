"""Method ``oauth1``: a request signed with an access token."""
from kodiak.common import errors

from .. import oauth, people, times


def check(core, payload, attempt):
    """Check the Authorization header of the request."""
    signed = oauth.Signed(attempt.http.method, attempt.http.url, attempt.http.headers.get('Authorization'))
    with core.db.read() as connection:
        access = oauth.token(connection, signed.need('oauth_token'), 'access')
        consumer = oauth.consumer(connection, access.consumer_id)
        user = people.by_id(connection, access.user_id)
    if signed.need('oauth_consumer_key') != consumer.id or user is None or not people.enabled(core.conf, user):
        raise errors.Unauthorized()
    signed.check(core, consumer.secret, access.secret)
    attempt.found(user)
    attempt.oauth = access
    attempt.expires = times.seconds(access.expires_at)
    attempt.extra.update(access_token_id=access.id, oauth={'consumer_id': consumer.id, 'access_token_id': access.id})
