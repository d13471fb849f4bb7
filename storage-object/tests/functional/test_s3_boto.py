"""The S3 API as boto3 calls it, over HTTP: versions, lists, policies, tags, locks, CORS, lifecycle, forms."""
import datetime
import io
import json
import time
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from kodiak.storage_object.s3.api import S3
from kodiak.storage_object.s3.expiry import Expiry


def fetch(url, method='GET', headers=None, body=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}, method=method), timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read()


@pytest.mark.parametrize('version', ['s3v4', 's3'])
def test_the_daily_round(client, version):
    s3 = client(version=version)
    s3.create_bucket(Bucket='bukket')
    s3.put_object(Bucket='bukket', Key='a b/ü', Body=b'hello', Metadata={'x': 'y'}, ContentType='text/x')
    found = s3.get_object(Bucket='bukket', Key='a b/ü')
    assert (found['Body'].read(), found['Metadata'], found['ContentType']) == (b'hello', {'x': 'y'}, 'text/x')
    s3.upload_fileobj(io.BytesIO(b'12345678' * (1 << 20)), 'bukket', 'big')
    whole = io.BytesIO()
    s3.download_fileobj('bukket', 'big', whole)
    assert whole.getvalue() == b'12345678' * (1 << 20)
    s3.copy({'Bucket': 'bukket', 'Key': 'big'}, 'bukket', 'copy')
    assert [o['Key'] for o in s3.list_objects_v2(Bucket='bukket')['Contents']] == ['a b/ü', 'big', 'copy']
    url = s3.generate_presigned_url('get_object', Params={'Bucket': 'bukket', 'Key': 'a b/ü'})
    assert fetch(url)[2] == b'hello'
    deleted = s3.delete_objects(Bucket='bukket', Delete={'Objects': [{'Key': key} for key in ('a b/ü', 'big', 'copy')]})
    assert len(deleted['Deleted']) == 3
    s3.delete_bucket(Bucket='bukket')
    assert s3.list_buckets()['Buckets'] == []


def test_versions(s3, refused):
    s3.put_bucket_versioning(Bucket='bukket', VersioningConfiguration={'Status': 'Enabled'})
    first, second = (s3.put_object(Bucket='bukket', Key='o', Body=body)['VersionId'] for body in (b'one', b'two'))
    assert s3.get_object(Bucket='bukket', Key='o', VersionId=first)['Body'].read() == b'one'
    marker = s3.delete_object(Bucket='bukket', Key='o')
    assert marker['DeleteMarker'] is True
    with pytest.raises(ClientError) as problem:
        s3.get_object(Bucket='bukket', Key='o')
    assert problem.value.response['ResponseMetadata']['HTTPHeaders']['x-amz-delete-marker'] == 'true'
    refused('MethodNotAllowed', s3.get_object, Bucket='bukket', Key='o', VersionId=marker['VersionId'])
    listed = s3.list_object_versions(Bucket='bukket')
    assert [v['VersionId'] for v in listed['Versions']] == [second, first]
    assert [(m['VersionId'], m['IsLatest']) for m in listed['DeleteMarkers']] == [(marker['VersionId'], True)]
    # Without the mark of deletion, and without the newest version, the next one is current.
    s3.delete_object(Bucket='bukket', Key='o', VersionId=marker['VersionId'])
    assert s3.get_object(Bucket='bukket', Key='o')['VersionId'] == second
    s3.delete_objects(Bucket='bukket', Delete={'Objects': [{'Key': 'o', 'VersionId': second}]})
    assert s3.get_object(Bucket='bukket', Key='o')['Body'].read() == b'one'
    assert s3.copy_object(Bucket='bukket', Key='p', CopySource={'Bucket': 'bukket', 'Key': 'o', 'VersionId': first})['VersionId']
    refused('NoSuchVersion', s3.get_object, Bucket='bukket', Key='o', VersionId='1234567890.12345')
    refused('BucketNotEmpty', s3.delete_bucket, Bucket='bukket')


def test_pages_of_versions(s3):
    s3.put_bucket_versioning(Bucket='bukket', VersioningConfiguration={'Status': 'Enabled'})
    wanted = [(key, s3.put_object(Bucket='bukket', Key=key, Body=b'x')['VersionId']) for key in 'aab']
    found = []
    for page in s3.get_paginator('list_object_versions').paginate(Bucket='bukket', PaginationConfig={'PageSize': 1}):
        found += [(v['Key'], v['VersionId'], v['IsLatest']) for v in page.get('Versions', ())]
    assert found == [(*wanted[1], True), (*wanted[0], False), (*wanted[2], True)]


def test_tags(s3, refused):
    s3.put_object(Bucket='bukket', Key='o', Body=b'x', Tagging='colour=red&a%26b=c%3Dd', Metadata={'keep': 'me'})
    assert s3.get_object(Bucket='bukket', Key='o')['ResponseMetadata']['HTTPHeaders']['x-amz-tagging-count'] == '2'
    assert s3.get_object_tagging(Bucket='bukket', Key='o')['TagSet'] == [
        {'Key': 'a&b', 'Value': 'c=d'}, {'Key': 'colour', 'Value': 'red'}]
    s3.put_object_tagging(Bucket='bukket', Key='o', Tagging={'TagSet': [{'Key': 'größe', 'Value': ''}]})
    s3.copy_object(Bucket='bukket', Key='p', CopySource='bukket/o')
    assert s3.get_object_tagging(Bucket='bukket', Key='p')['TagSet'] == [{'Key': 'größe', 'Value': ''}]
    assert s3.head_object(Bucket='bukket', Key='o')['Metadata'] == {'keep': 'me'}
    s3.delete_object_tagging(Bucket='bukket', Key='o')
    assert s3.get_object_tagging(Bucket='bukket', Key='o')['TagSet'] == []
    many = [{'Key': str(number), 'Value': ''} for number in range(11)]
    refused('BadRequest', s3.put_object_tagging, Bucket='bukket', Key='o', Tagging={'TagSet': many})
    refused('NoSuchTagSet', s3.get_bucket_tagging, Bucket='bukket')
    s3.put_bucket_tagging(Bucket='bukket', Tagging={'TagSet': many})
    assert len(s3.get_bucket_tagging(Bucket='bukket')['TagSet']) == 11


def test_lists(s3, client, endpoint, refused):
    s3.put_object(Bucket='bukket', Key='o', Body=b'x')
    url, guest = f'{endpoint}/bukket/o', client('test:guest')
    assert fetch(url)[0] == 403
    refused('AccessDenied', guest.get_object, Bucket='bukket', Key='o')
    s3.put_object_acl(Bucket='bukket', Key='o', ACL='public-read')
    assert fetch(url)[2] == b'x'
    assert fetch(f'{endpoint}/bukket')[0] == 403
    s3.put_bucket_acl(Bucket='bukket', ACL='public-read')
    assert b'<Key>o</Key>' in fetch(f'{endpoint}/bukket')[2]
    assert fetch(url, 'PUT', body=b'y')[0] == 403
    grants = s3.get_bucket_acl(Bucket='bukket')['Grants']
    assert [grant['Permission'] for grant in grants if 'AllUsers' in grant['Grantee'].get('URI', '')] == ['READ']
    s3.put_object(Bucket='bukket', Key='p', Body=b'p', GrantRead='id=test:guest')
    assert guest.get_object(Bucket='bukket', Key='p')['Body'].read() == b'p'
    refused('AccessDenied', guest.put_object, Bucket='bukket', Key='q', Body=b'')
    refused('InvalidArgument', s3.put_object, Bucket='bukket', Key='q', Body=b'', ACL='nonsense')
    s3.put_public_access_block(Bucket='bukket', PublicAccessBlockConfiguration={'IgnorePublicAcls': True, 'BlockPublicAcls': True})
    assert fetch(url)[0] == 403
    refused('AccessDenied', s3.put_bucket_acl, Bucket='bukket', ACL='public-read')


def test_names_are_one_world(s3, client, refused):
    stranger = client('other:stranger')
    refused('BucketAlreadyExists', stranger.create_bucket, Bucket='bukket')
    refused('AccessDenied', stranger.list_objects_v2, Bucket='bukket')
    refused('BucketAlreadyOwnedByYou', s3.create_bucket, Bucket='bukket')
    s3.delete_bucket(Bucket='bukket')
    stranger.create_bucket(Bucket='bukket')


def test_policies(s3, client, endpoint, refused):
    s3.put_object(Bucket='bukket', Key='open/o', Body=b'x')
    s3.put_object(Bucket='bukket', Key='shut/o', Body=b'x')
    refused('NoSuchBucketPolicy', s3.get_bucket_policy, Bucket='bukket')
    policy = {'Version': '2012-10-17', 'Statement': [
        {'Effect': 'Allow', 'Principal': '*', 'Action': 's3:GetObject', 'Resource': 'arn:aws:s3:::bukket/open/*'},
        {'Effect': 'Allow', 'Principal': {'AWS': 'arn:aws:iam::other:user/stranger'}, 'Action': ['s3:PutObject', 's3:ListBucket'],
         'Resource': ['arn:aws:s3:::bukket', 'arn:aws:s3:::bukket/*']},
        {'Effect': 'Deny', 'Principal': '*', 'Action': 's3:*', 'Resource': 'arn:aws:s3:::bukket/shut/*',
         'Condition': {'IpAddress': {'aws:SourceIp': '127.0.0.0/8'}}}]}
    s3.put_bucket_policy(Bucket='bukket', Policy=json.dumps(policy))
    assert json.loads(s3.get_bucket_policy(Bucket='bukket')['Policy']) == policy
    assert s3.get_bucket_policy_status(Bucket='bukket')['PolicyStatus']['IsPublic'] is True
    assert fetch(f'{endpoint}/bukket/open/o')[0] == 200
    assert fetch(f'{endpoint}/bukket/shut/o')[0] == 403
    refused('AccessDenied', s3.get_object, Bucket='bukket', Key='shut/o')
    stranger = client('other:stranger')
    stranger.put_object(Bucket='bukket', Key='theirs', Body=b'y')
    assert len(stranger.list_objects_v2(Bucket='bukket')['Contents']) == 3
    refused('AccessDenied', stranger.delete_object, Bucket='bukket', Key='theirs')
    refused('AccessDenied', stranger.put_bucket_policy, Bucket='bukket', Policy=json.dumps(policy))
    elsewhere = {'Statement': [{**policy['Statement'][0], 'Resource': 'arn:aws:s3:::other/*'}]}
    for bad in ('{', '[]', '{"Statement": []}', json.dumps(elsewhere)):
        refused('MalformedPolicy', s3.put_bucket_policy, Bucket='bukket', Policy=bad)
    # Who may read somebody's object may copy it to what is their own, and to nowhere else.
    stranger.create_bucket(Bucket='own')
    stranger.copy_object(Bucket='own', Key='o', CopySource='bukket/open/o')
    refused('AccessDenied', stranger.copy_object, Bucket='own', Key='p', CopySource='bukket/shut/o')
    s3.create_bucket(Bucket='private')
    refused('AccessDenied', stranger.copy_object, Bucket='private', Key='o', CopySource='bukket/open/o')
    refused('AccessDenied', stranger.copy_object, Bucket='bukket', Key='o', CopySource='private/o')
    s3.delete_bucket_policy(Bucket='bukket')
    assert fetch(f'{endpoint}/bukket/open/o')[0] == 403


def test_cors(s3, endpoint, refused):
    s3.put_object(Bucket='bukket', Key='o', Body=b'x', ACL='public-read')
    s3.put_bucket_cors(Bucket='bukket', CORSConfiguration={'CORSRules': [{
        'AllowedOrigins': ['https://*.example.com'], 'AllowedMethods': ['GET'], 'AllowedHeaders': ['x-*'],
        'ExposeHeaders': ['ETag'], 'MaxAgeSeconds': 60}]})
    ask = {'Origin': 'https://www.example.com', 'Access-Control-Request-Method': 'GET', 'Access-Control-Request-Headers': 'X-Thing'}
    status, headers, _ = fetch(f'{endpoint}/bukket/o', 'OPTIONS', ask)
    assert (status, headers['Access-Control-Allow-Origin'], headers['Access-Control-Max-Age']) == (200, ask['Origin'], '60')
    assert fetch(f'{endpoint}/bukket/o', 'OPTIONS', {**ask, 'Origin': 'https://example.org'})[0] == 403
    assert fetch(f'{endpoint}/bukket/o', headers={'Origin': ask['Origin']})[1]['Access-Control-Expose-Headers'] == 'ETag'
    assert 'Access-Control-Allow-Origin' not in fetch(f'{endpoint}/bukket/o', headers={'Origin': 'https://example.org'})[1]
    s3.delete_bucket_cors(Bucket='bukket')
    refused('NoSuchCORSConfiguration', s3.get_bucket_cors, Bucket='bukket')


def test_locks(client, refused):
    s3 = client()
    s3.create_bucket(Bucket='locked', ObjectLockEnabledForBucket=True)
    assert s3.get_bucket_versioning(Bucket='locked')['Status'] == 'Enabled'
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    version = s3.put_object(Bucket='locked', Key='o', Body=b'x', ObjectLockMode='GOVERNANCE',
                            ObjectLockRetainUntilDate=until)['VersionId']
    refused('AccessDenied', s3.delete_object, Bucket='locked', Key='o', VersionId=version)
    s3.delete_object(Bucket='locked', Key='o')
    assert s3.get_object(Bucket='locked', Key='o', VersionId=version)['ObjectLockMode'] == 'GOVERNANCE'
    s3.put_object_legal_hold(Bucket='locked', Key='o', VersionId=version, LegalHold={'Status': 'ON'})
    refused('AccessDenied', s3.delete_object, Bucket='locked', Key='o', VersionId=version, BypassGovernanceRetention=True)
    s3.put_object_legal_hold(Bucket='locked', Key='o', VersionId=version, LegalHold={'Status': 'OFF'})
    shorter = {'Mode': 'GOVERNANCE', 'RetainUntilDate': until - datetime.timedelta(hours=1)}
    refused('AccessDenied', s3.put_object_retention, Bucket='locked', Key='o', VersionId=version, Retention=shorter)
    s3.delete_object(Bucket='locked', Key='o', VersionId=version, BypassGovernanceRetention=True)
    refused('InvalidBucketState', s3.put_bucket_versioning, Bucket='locked', VersioningConfiguration={'Status': 'Suspended'})
    s3.put_object_lock_configuration(Bucket='locked', ObjectLockConfiguration={
        'ObjectLockEnabled': 'Enabled', 'Rule': {'DefaultRetention': {'Mode': 'COMPLIANCE', 'Days': 1}}})
    version = s3.put_object(Bucket='locked', Key='p', Body=b'x')['VersionId']
    assert s3.get_object_retention(Bucket='locked', Key='p')['Retention']['Mode'] == 'COMPLIANCE'
    refused('AccessDenied', s3.delete_object, Bucket='locked', Key='p', VersionId=version, BypassGovernanceRetention=True)
    s3.create_bucket(Bucket='plain')
    refused('InvalidRequest', s3.put_object, Bucket='plain', Key='o', Body=b'', ObjectLockLegalHoldStatus='ON')


def test_forms(s3, endpoint, refused):
    def send(fields, data, key='up.txt'):
        lines = b''.join(f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items())
        lines += f'--x\r\nContent-Disposition: form-data; name="file"; filename="{key}"\r\nContent-Type: text/plain\r\n'.encode()
        body = lines + b'\r\n' + data + b'\r\n--x--\r\n'
        return fetch(f'{endpoint}/bukket', 'POST', {'Content-Type': 'multipart/form-data; boundary=x'}, body)
    form = s3.generate_presigned_post('bukket', 'in/${filename}', {'x-amz-meta-a': 'b', 'success_action_status': '201'}, [
        {'x-amz-meta-a': 'b'}, {'success_action_status': '201'}, ['content-length-range', 1, 10]])
    status, _, body = send(form['fields'], b'hello')
    assert (status, b'<Key>in/up.txt</Key>' in body) == (201, True)
    found = s3.get_object(Bucket='bukket', Key='in/up.txt')
    assert (found['Body'].read(), found['Metadata']) == (b'hello', {'a': 'b'})
    assert b'EntityTooLarge' in send(form['fields'], b'much too long', 'long')[2]
    refused('NoSuchKey', s3.get_object, Bucket='bukket', Key='in/long')
    assert b'Extra input fields' in send({**form['fields'], 'x-amz-meta-c': 'd'}, b'x')[2]
    assert b'SignatureDoesNotMatch' in send({**form['fields'], 'x-amz-signature': '0' * 64}, b'x')[2]
    assert b'AccessDenied' in send({'key': 'o'}, b'x')[2]


def test_lifecycle(s3, refused):
    rules = [{'ID': 'old', 'Status': 'Enabled', 'Filter': {'Prefix': 'tmp/'}, 'Expiration': {'Days': 1}}]
    s3.put_bucket_lifecycle_configuration(Bucket='bukket', LifecycleConfiguration={'Rules': rules})
    s3.put_object(Bucket='bukket', Key='tmp/o', Body=b'x')
    assert 'rule-id="old"' in s3.head_object(Bucket='bukket', Key='tmp/o')['Expiration']
    s3.put_object(Bucket='bukket', Key='o', Body=b'x')
    assert 'Expiration' not in s3.head_object(Bucket='bukket', Key='o')
    assert s3.get_bucket_lifecycle_configuration(Bucket='bukket')['Rules'] == rules
    bad = [{**rules[0], 'Expiration': {'Days': 0}}]
    refused('InvalidArgument', s3.put_bucket_lifecycle_configuration, Bucket='bukket', LifecycleConfiguration={'Rules': bad})


def test_what_lifecycle_rules_take_away(client, s3_application):
    s3, expiry = client(), Expiry(_s3_of(s3_application), s3_application.proxy)
    for bucket in ('plain', 'kept'):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket='kept', VersioningConfiguration={'Status': 'Enabled'})
    rule = {'Status': 'Enabled', 'Expiration': {'Days': 1}}
    s3.put_bucket_lifecycle_configuration(Bucket='plain', LifecycleConfiguration={'Rules': [
        {**rule, 'ID': 'a', 'Filter': {'And': {'Prefix': 'tmp/', 'Tags': [{'Key': 'k', 'Value': 'v'}]}}},
        {'Status': 'Enabled', 'ID': 'b', 'Filter': {'Prefix': ''}, 'AbortIncompleteMultipartUpload': {'DaysAfterInitiation': 1}}]})
    s3.put_bucket_lifecycle_configuration(Bucket='kept', LifecycleConfiguration={'Rules': [
        {**rule, 'ID': 'a', 'Filter': {'Prefix': ''}, 'NoncurrentVersionExpiration': {'NoncurrentDays': 1}}]})
    s3.put_object(Bucket='plain', Key='tmp/old', Body=b'x', Tagging='k=v')
    s3.put_object(Bucket='plain', Key='tmp/other', Body=b'x')
    s3.create_multipart_upload(Bucket='plain', Key='never')
    for body in b'12':
        s3.put_object(Bucket='kept', Key='o', Body=bytes([body]))
    day = 86400
    assert expiry.run_once(time.time()) == {'objects': 0, 'versions': 0, 'uploads': 0}
    assert expiry.run_once(time.time() + 3 * day) == {'objects': 2, 'versions': 1, 'uploads': 1}
    assert expiry.run_once(time.time() + 3 * day) == {'objects': 0, 'versions': 0, 'uploads': 0}     # (today it has been done)
    assert [o['Key'] for o in s3.list_objects_v2(Bucket='plain')['Contents']] == ['tmp/other']
    listed = s3.list_object_versions(Bucket='kept')
    assert (len(listed['Versions']), len(listed['DeleteMarkers'])) == (1, 1)


def _s3_of(s3_application):
    inner = s3_application.application
    while not isinstance(inner, S3):
        inner = inner.application
    return inner
