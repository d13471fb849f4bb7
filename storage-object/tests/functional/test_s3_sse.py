"""S3's server-side encryption: with keys of clients (SSE-C), with the store's own."""
import base64
import hashlib
import json
import os

import pytest

from .test_encryption import keys_file, stored

KEY, OTHER = hashlib.sha256(b'one').digest(), hashlib.sha256(b'two').digest()
SECRET = b'what nobody reads who has no key '


def own(key=KEY, prefix='SSECustomer'):
    return {prefix + 'Algorithm': 'AES256', prefix + 'Key': key}


FROM = own(prefix='CopySourceSSECustomer')


@pytest.fixture(params=['plain', 'encrypted'])
def s3_options(request, tmp_path):
    """Over an encryption at rest, and without one."""
    return {'encryption': {'keys': keys_file(tmp_path / 'keys', 'one')}} if request.param == 'encrypted' else {}


@pytest.mark.parametrize('size', [0, 1, 1000, 300000, 3 << 20])
def test_what_is_stored_needs_its_key(s3, servers, refused, size):
    body = (SECRET * (size // len(SECRET) + 1))[:size]
    put = s3.put_object(Bucket='bukket', Key='o', Body=body, Metadata={'a': 'b'}, **own())
    assert (put['SSECustomerAlgorithm'], 'ServerSideEncryption' in put) == ('AES256', False)
    found = s3.get_object(Bucket='bukket', Key='o', **own())
    assert (found['Body'].read(), found['ETag'], found['Metadata']) == (body, put['ETag'], {'a': 'b'})
    assert found['SSECustomerKeyMD5'] == base64.b64encode(hashlib.md5(KEY).digest()).decode()
    assert s3.head_object(Bucket='bukket', Key='o', **own())['ContentLength'] == size
    assert size < len(SECRET) or SECRET not in stored(servers)
    refused('InvalidRequest', s3.get_object, Bucket='bukket', Key='o')
    refused('InvalidRequest', s3.get_object, Bucket='bukket', Key='o', **own(OTHER))
    refused('400', s3.head_object, Bucket='bukket', Key='o')
    refused('400', s3.head_object, Bucket='bukket', Key='o', **own(OTHER))
    assert s3.list_objects_v2(Bucket='bukket')['Contents'][0]['ETag'] == put['ETag']


def test_ranges_and_conditions(s3):
    body = os.urandom(300000)
    etag = s3.put_object(Bucket='bukket', Key='o', Body=body, **own())['ETag']
    for asked, wanted in (('bytes=0-0', body[:1]), ('bytes=15-17', body[15:18]), ('bytes=299990-', body[-10:]),
                          ('bytes=-5', body[-5:]), ('bytes=0-1,15-16', body)):
        assert s3.get_object(Bucket='bukket', Key='o', Range=asked, **own())['Body'].read() == wanted
    assert s3.get_object(Bucket='bukket', Key='o', IfMatch=etag, **own())['Body'].read() == body


def test_a_key_for_what_needs_none(s3, refused):
    s3.put_object(Bucket='bukket', Key='o', Body=b'body')
    refused('InvalidRequest', s3.get_object, Bucket='bukket', Key='o', **own())
    assert s3.get_object(Bucket='bukket', Key='o')['Body'].read() == b'body'


@pytest.mark.parametrize('changed, code', [
    ({'key-md5': 'AAAAAAAAAAAAAAAAAAAAAA=='}, 'InvalidArgument'), ({'key-md5': None}, 'InvalidArgument'),
    ({'key': None, 'key-md5': None}, 'InvalidArgument'), ({'algorithm': None}, 'InvalidArgument'),
    ({'key': 'AAAA'}, 'InvalidArgument'), ({'key': '&'}, 'InvalidArgument'),
    ({'algorithm': 'AES192'}, 'InvalidEncryptionAlgorithmError'),
    ({'': 'AES256'}, 'InvalidArgument'), ({'': 'aws:kms', 'aws-kms-key-id': 'k'}, 'InvalidArgument')])
def test_wrong_headers(s3, refused, changed, code):
    headers = {'customer-algorithm': 'AES256', 'customer-key': base64.b64encode(KEY).decode(),
               'customer-key-md5': base64.b64encode(hashlib.md5(KEY).digest()).decode()}
    for name, value in changed.items():
        name = name if not name or name.startswith('aws') else 'customer-' + name
        headers[name] = value
    made = {('x-amz-server-side-encryption-' + name).rstrip('-'): value for name, value in headers.items() if value}
    s3.meta.events.register('before-call.s3.PutObject', lambda params, **_: params['headers'].update(made))
    refused(code, s3.put_object, Bucket='bukket', Key='o', Body=b'body')
    assert 'Contents' not in s3.list_objects(Bucket='bukket')


def test_methods_that_there_are_not(s3, refused):
    refused('NotImplemented', s3.put_object, Bucket='bukket', Key='o', Body=b'', ServerSideEncryption='aws:kms', SSEKMSKeyId='k')
    refused('InvalidArgument', s3.put_object, Bucket='bukket', Key='o', Body=b'', ServerSideEncryption='AES192')
    refused('InvalidArgument', s3.put_object, Bucket='bukket', Key='o', Body=b'', SSEKMSKeyId='k')


@pytest.mark.parametrize('algorithm', [None, 'CRC32', 'SHA256'])
def test_parts(s3, servers, refused, algorithm):
    parts = [(SECRET * 200000)[:5 << 20], SECRET * 3]
    more = {'ChecksumAlgorithm': algorithm} if algorithm else {}
    upload = s3.create_multipart_upload(Bucket='bukket', Key='o', Metadata={'a': 'b'}, **own(), **more)['UploadId']
    named = {'Bucket': 'bukket', 'Key': 'o', 'UploadId': upload}
    refused('InvalidRequest', s3.upload_part, PartNumber=1, Body=b'x', **named)
    refused('InvalidRequest', s3.upload_part, PartNumber=1, Body=b'x', **named, **own(OTHER))
    sent = []
    for number, body in enumerate(parts, 1):
        answer = s3.upload_part(PartNumber=number, Body=body, **named, **own(), **more)
        sent.append({'PartNumber': number, **{k: v for k, v in answer.items() if k == 'ETag' or k == f'Checksum{algorithm}'}})
    refused('InvalidRequest', s3.complete_multipart_upload, MultipartUpload={'Parts': sent}, **named, **own(OTHER))
    if algorithm:
        refused('InvalidRequest', s3.complete_multipart_upload, MultipartUpload={'Parts': sent}, **named)
    done = s3.complete_multipart_upload(MultipartUpload={'Parts': sent}, **named, **(own() if algorithm else {}))
    found = s3.get_object(Bucket='bukket', Key='o', ChecksumMode='ENABLED', **own())
    assert (found['Body'].read(), found['ETag'], found['Metadata']) == (b''.join(parts), done['ETag'], {'a': 'b'})
    assert found.get(f'Checksum{algorithm}') == done.get(f'Checksum{algorithm}')
    edge = 5 << 20
    for first, last in ((edge - 3, edge + 3), (edge, edge), (0, edge)):
        got = s3.get_object(Bucket='bukket', Key='o', Range=f'bytes={first}-{last}', **own())['Body'].read()
        assert got == b''.join(parts)[first:last + 1]
    assert s3.get_object(Bucket='bukket', Key='o', PartNumber=2, **own())['Body'].read() == parts[1]
    refused('InvalidRequest', s3.get_object, Bucket='bukket', Key='o')
    refused('InvalidRequest', s3.get_object, Bucket='bukket', Key='o', PartNumber=1)
    refused('InvalidRequest', s3.get_object, Bucket='bukket', Key='o', **own(OTHER))
    refused('400', s3.head_object, Bucket='bukket', Key='o')
    assert SECRET not in stored(servers)
    s3.delete_object(Bucket='bukket', Key='o')
    assert 'Contents' not in s3.list_objects(Bucket='bukket')


def test_an_upload_without_a_key_takes_no_parts_with_one(s3, refused):
    upload = s3.create_multipart_upload(Bucket='bukket', Key='o')['UploadId']
    refused('InvalidRequest', s3.upload_part, Bucket='bukket', Key='o', UploadId=upload, PartNumber=1, Body=b'x', **own())


def test_copies(s3, servers, refused):
    etag = s3.put_object(Bucket='bukket', Key='o', Body=SECRET * 10, ChecksumAlgorithm='SHA256', **own())['ETag']
    source = {'Bucket': 'bukket', 'Key': 'o'}
    refused('InvalidRequest', s3.copy_object, Bucket='bukket', Key='p', CopySource=source)
    refused('InvalidRequest', s3.copy_object, Bucket='bukket', Key='p', CopySource=source, **own(OTHER, 'CopySourceSSECustomer'))
    copied = s3.copy_object(Bucket='bukket', Key='p', CopySource=source, **FROM, **own(OTHER))
    assert copied['SSECustomerAlgorithm'] == 'AES256' and copied['CopyObjectResult']['ETag'] != etag
    found = s3.get_object(Bucket='bukket', Key='p', ChecksumMode='ENABLED', **own(OTHER))
    assert (found['Body'].read(), found['ChecksumSHA256']) == (
        SECRET * 10, base64.b64encode(hashlib.sha256(SECRET * 10).digest()).decode())
    assert SECRET not in stored(servers)
    # to itself, with another key; then without any
    s3.copy_object(Bucket='bukket', Key='o', CopySource=source, **FROM, **own(OTHER))
    assert s3.get_object(Bucket='bukket', Key='o', **own(OTHER))['Body'].read() == SECRET * 10
    s3.copy_object(Bucket='bukket', Key='q', CopySource=source, **own(OTHER, 'CopySourceSSECustomer'))
    found = s3.get_object(Bucket='bukket', Key='q')
    assert (found['Body'].read(), found['ETag']) == (SECRET * 10, f'"{hashlib.md5(SECRET * 10).hexdigest()}"')


def test_copies_of_parts(s3):
    body = os.urandom(6 << 20)
    s3.put_object(Bucket='bukket', Key='o', Body=body, **own())
    upload = s3.create_multipart_upload(Bucket='bukket', Key='p', **own(OTHER))['UploadId']
    named, sent = {'Bucket': 'bukket', 'Key': 'p', 'UploadId': upload}, []
    for number, span in enumerate(('bytes=0-5242880', 'bytes=5242881-6291455'), 1):
        made = s3.upload_part_copy(PartNumber=number, CopySource={'Bucket': 'bukket', 'Key': 'o'}, CopySourceRange=span, **named,
                                   **FROM, **own(OTHER))
        sent.append({'PartNumber': number, 'ETag': made['CopyPartResult']['ETag']})
    s3.complete_multipart_upload(MultipartUpload={'Parts': sent}, **named)
    assert s3.get_object(Bucket='bukket', Key='p', **own(OTHER))['Body'].read() == body
    # The whole of it, from parts to one object.
    s3.copy_object(Bucket='bukket', Key='q', CopySource={'Bucket': 'bukket', 'Key': 'p'}, **own(OTHER, 'CopySourceSSECustomer'))
    assert s3.get_object(Bucket='bukket', Key='q')['Body'].read() == body


def test_versions(s3):
    s3.put_object(Bucket='bukket', Key='o', Body=b'first', **own())
    s3.put_bucket_versioning(Bucket='bukket', VersioningConfiguration={'Status': 'Enabled'})
    second = s3.put_object(Bucket='bukket', Key='o', Body=b'second', **own(OTHER))['VersionId']
    s3.put_object(Bucket='bukket', Key='o', Body=b'third')
    assert s3.get_object(Bucket='bukket', Key='o', VersionId='null', **own())['Body'].read() == b'first'
    assert s3.get_object(Bucket='bukket', Key='o', VersionId=second, **own(OTHER))['Body'].read() == b'second'
    assert s3.get_object(Bucket='bukket', Key='o')['Body'].read() == b'third'


def test_attributes_need_the_key_tags_and_lists_do_not(s3, refused):
    etag = s3.put_object(Bucket='bukket', Key='o', Body=b'body', ChecksumAlgorithm='SHA1', **own())['ETag']
    asked = {'Bucket': 'bukket', 'Key': 'o', 'ObjectAttributes': ['ETag', 'Checksum', 'ObjectSize']}
    refused('InvalidRequest', s3.get_object_attributes, **asked)
    text = {'SSECustomerAlgorithm': 'AES256', 'SSECustomerKey': base64.b64encode(KEY).decode(),
            'SSECustomerKeyMD5': base64.b64encode(hashlib.md5(KEY).digest()).decode()}      # (boto3 encodes no key of this call)
    found = s3.get_object_attributes(**asked, **text)
    assert (found['ETag'], found['ObjectSize']) == (etag.strip('"'), 4)
    assert found['Checksum']['ChecksumSHA1'] == base64.b64encode(hashlib.sha1(b'body').digest()).decode()
    s3.put_object_tagging(Bucket='bukket', Key='o', Tagging={'TagSet': [{'Key': 'a', 'Value': 'b'}]})
    s3.put_object_acl(Bucket='bukket', Key='o', ACL='public-read')
    assert s3.get_object(Bucket='bukket', Key='o', **own())['Body'].read() == b'body'


def test_the_swift_api_gives_no_body(s3, swift):
    s3.put_object(Bucket='bukket', Key='o', Body=b'body', **own())
    place = '/v1/AUTH_test/bukket'
    assert swift('HEAD', place + '/o').status == 200
    assert swift('GET', place + '/o').status == 400
    assert swift('COPY', place + '/o', headers={'Destination': 'bukket/p'}).status == 400
    manifest = json.dumps([{'path': '/bukket/o'}]).encode()
    assert swift('PUT', place + '/slo?multipart-manifest=put', manifest).status == 201
    assert swift('GET', place + '/slo').status == 409


def test_a_wrong_digest_is_refused(s3, refused):
    refused('BadDigest', s3.put_object, Bucket='bukket', Key='o', Body=b'body',
            ContentMD5=base64.b64encode(hashlib.md5(b'other').digest()).decode(), **own())
    s3.put_object(Bucket='bukket', Key='o', Body=b'body', **own(),
                  ContentMD5=base64.b64encode(hashlib.md5(b'body').digest()).decode())
    assert s3.get_object(Bucket='bukket', Key='o', **own())['Body'].read() == b'body'


def test_a_policy_that_wants_a_key(s3, refused):
    s3.put_bucket_policy(Bucket='bukket', Policy=json.dumps({'Version': '2012-10-17', 'Statement': [{
        'Effect': 'Deny', 'Principal': '*', 'Action': 's3:PutObject', 'Resource': 'arn:aws:s3:::bukket/*',
        'Condition': {'Null': {'s3:x-amz-server-side-encryption-customer-algorithm': 'true'}}}]}))
    refused('AccessDenied', s3.put_object, Bucket='bukket', Key='o', Body=b'body')
    s3.put_object(Bucket='bukket', Key='o', Body=b'body', **own())


class TestOfTheStore:
    """SSE-S3: what is encrypted at rest says so."""

    @pytest.fixture
    def s3_options(self, tmp_path):
        return {'encryption': {'keys': keys_file(tmp_path / 'keys', 'one')}}

    def test_each_answer_says_so(self, s3):
        asked = {'Bucket': 'bukket', 'ServerSideEncryption': 'AES256'}
        assert s3.put_object(Key='o', Body=b'body', **asked)['ServerSideEncryption'] == 'AES256'
        assert s3.copy_object(Key='p', CopySource='bukket/o', **asked)['ServerSideEncryption'] == 'AES256'
        upload = s3.create_multipart_upload(Key='q', **asked)
        assert upload['ServerSideEncryption'] == 'AES256'
        named = {'Bucket': 'bukket', 'Key': 'q', 'UploadId': upload['UploadId']}
        part = s3.upload_part(PartNumber=1, Body=b'body', **named)
        done = s3.complete_multipart_upload(MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': part['ETag']}]}, **named)
        assert (part['ServerSideEncryption'], done['ServerSideEncryption']) == ('AES256', 'AES256')
        for key in 'opq':
            assert s3.head_object(Bucket='bukket', Key=key)['ServerSideEncryption'] == 'AES256'

    def test_metadata_of_nothing(self, s3):
        s3.put_object(Bucket='bukket', Key='o', Body=b'', Metadata={'a': '', 'b': 'c'})
        assert s3.head_object(Bucket='bukket', Key='o')['Metadata'] == {'a': '', 'b': 'c'}

    def test_a_bucket_says_so(self, s3, refused):
        refused('ServerSideEncryptionConfigurationNotFoundError', s3.get_bucket_encryption, Bucket='bukket')
        rule = {'ApplyServerSideEncryptionByDefault': {'SSEAlgorithm': 'AES256'}}
        s3.put_bucket_encryption(Bucket='bukket', ServerSideEncryptionConfiguration={'Rules': [rule]})
        found = s3.get_bucket_encryption(Bucket='bukket')['ServerSideEncryptionConfiguration']['Rules'][0]
        assert found['ApplyServerSideEncryptionByDefault'] == {'SSEAlgorithm': 'AES256'}
        rule = {'ApplyServerSideEncryptionByDefault': {'SSEAlgorithm': 'aws:kms', 'KMSMasterKeyID': 'k'}}
        refused('NotImplemented', s3.put_bucket_encryption, Bucket='bukket', ServerSideEncryptionConfiguration={'Rules': [rule]})
        s3.delete_bucket_encryption(Bucket='bukket')
        refused('ServerSideEncryptionConfigurationNotFoundError', s3.get_bucket_encryption, Bucket='bukket')


def test_a_bucket_cannot_say_so_without_it(s3, refused, s3_options):
    if s3_options:
        pytest.skip('it is encrypted')
    rule = {'ApplyServerSideEncryptionByDefault': {'SSEAlgorithm': 'AES256'}}
    refused('NotImplemented', s3.put_bucket_encryption, Bucket='bukket', ServerSideEncryptionConfiguration={'Rules': [rule]})
