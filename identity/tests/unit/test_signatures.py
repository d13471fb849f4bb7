import pytest

from kodiak.common import errors
from kodiak.identity import ec2, oauth

# The example of the AWS documentation for version 4: GET iam ListUsers.
SECRET4 = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
REQUEST4 = {
    'verb': 'GET', 'path': '/', 'host': 'iam.amazonaws.com',
    'params': {'Action': 'ListUsers', 'Version': '2010-05-08'},
    'body_hash': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'headers': {
        'Content-Type': 'application/x-www-form-urlencoded; charset=utf-8', 'X-Amz-Date': '20150830T123600Z',
        'Authorization': 'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, '
                         'SignedHeaders=content-type;host;x-amz-date, Signature=x'},
    'signature': '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7'}


def test_version_4_as_documented():
    assert ec2.valid(SECRET4, REQUEST4)
    assert ec2.valid(SECRET4, {**REQUEST4, 'host': 'iam.amazonaws.com:443'})
    assert not ec2.valid('other', REQUEST4)
    assert not ec2.valid(SECRET4, {**REQUEST4, 'path': '/x'})


@pytest.mark.parametrize('params', [{'SignatureVersion': '0', 'Action': 'a', 'Timestamp': 't'}, {'SignatureVersion': '1', 'b': '1'},
                                    {'SignatureVersion': '2', 'c': 'ä ~'}])
def test_older_versions(params):
    request = {'verb': 'GET', 'path': '/', 'host': 'h', 'params': params}
    request['signature'] = ec2._signature('secret', request, dict(params))
    assert ec2.valid('secret', request) and not ec2.valid('other', request)


@pytest.mark.parametrize('request_',
                         [{}, {'params': {'SignatureVersion': '9'}}, {'headers': {'Authorization': 'AWS4-HMAC-SHA256 x'}}])
def test_what_is_not_signed_is_not_valid(request_):
    assert not ec2.valid('secret', request_)


def test_the_base_string_of_oauth_as_in_the_rfc():
    # RFC 5849, section 3.4.1.1, without its body parameters
    header = ('OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2", oauth_token="kkk9d7dh3k39sjv7", '
              'oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", oauth_nonce="7d8f3e4a", '
              'oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"')
    signed = oauth.Signed('post', 'http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b', header)
    assert signed.base() == (
        'POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26'
        'oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26'
        'oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7')


def test_a_request_without_an_oauth_header():
    with pytest.raises(errors.BadRequest):
        oauth.Signed('GET', 'http://x/', None)
    with pytest.raises(errors.BadRequest):
        oauth.Signed('GET', 'http://x/', 'OAuth a="b"').need('oauth_token')
