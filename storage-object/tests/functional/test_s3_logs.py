"""Logs of a bucket's requests."""
import json
import re
import shlex
import urllib.request

import pytest

from kodiak.storage_object.s3.api import S3

OWNER, OTHER = 'test:tester', 'other:stranger'


def line_of(text):
    """The fields of a line."""
    fields = shlex.split(text.replace('[', '"').replace(']', '"'))
    assert len(fields) == 26
    names = ('owner', 'bucket', 'time', 'address', 'who', 'request', 'operation', 'key', 'line', 'status', 'error', 'sent',
             'size', 'total', 'turn', 'referer', 'agent', 'version', 'host_id', 'signature', 'cipher', 'auth', 'host', 'tls',
             'point', 'acl')
    return dict(zip(names, fields, strict=True))


@pytest.fixture
def logs(s3_application):
    inner = s3_application.application
    while not isinstance(inner, S3):
        inner = inner.application
    return inner.logs


@pytest.fixture
def target(s3):
    s3.create_bucket(Bucket='target')
    allow(s3)
    return s3


def allow(s3, effect='Allow', principal=None, **condition):
    s3.put_bucket_policy(Bucket='target', Policy=json.dumps({'Version': '2012-10-17', 'Statement': [{
        'Effect': effect, 'Principal': principal or {'Service': 'logging.s3.amazonaws.com'}, 'Action': 's3:PutObject',
        'Resource': 'arn:aws:s3:::target/log/*', 'Condition': condition}]}))


def turn_on(s3, **more):
    s3.put_bucket_logging(Bucket='bukket', BucketLoggingStatus={'LoggingEnabled': {
        'TargetBucket': 'target', 'TargetPrefix': 'log/', **more}})


def delivered(s3, logs):
    logs.deliver(True)
    keys = [row['Key'] for row in s3.list_objects(Bucket='target').get('Contents', ())]
    return keys, [line_of(line) for key in keys for line in
                  s3.get_object(Bucket='target', Key=key)['Body'].read().decode().splitlines()]


def test_configuration(target, refused):
    assert 'LoggingEnabled' not in target.get_bucket_logging(Bucket='bukket')
    grants = [{'Grantee': {'ID': OTHER, 'Type': 'CanonicalUser'}, 'Permission': 'READ'}]
    turn_on(target, TargetGrants=grants, TargetObjectKeyFormat={'PartitionedPrefix': {'PartitionDateSource': 'EventTime'}})
    assert target.get_bucket_logging(Bucket='bukket')['LoggingEnabled'] == {
        'TargetBucket': 'target', 'TargetPrefix': 'log/', 'TargetGrants': grants,
        'TargetObjectKeyFormat': {'PartitionedPrefix': {'PartitionDateSource': 'EventTime'}}}
    target.put_bucket_logging(Bucket='bukket', BucketLoggingStatus={})
    assert 'LoggingEnabled' not in target.get_bucket_logging(Bucket='bukket')
    refused('MalformedXML', turn_on, s3=target, TargetObjectKeyFormat={'PartitionedPrefix': {'PartitionDateSource': 'Never'}})


def test_a_target_must_be_there_and_allow_it(target, client, refused):
    refused('InvalidTargetBucketForLogging', turn_on, s3=target, TargetBucket='nowhere')
    refused('AccessDenied', turn_on, s3=target, TargetPrefix='elsewhere/')
    allow(target, ArnLike={'aws:SourceArn': 'arn:aws:s3:::another'})
    refused('AccessDenied', turn_on, s3=target)
    allow(target, ArnLike={'aws:SourceArn': 'arn:aws:s3:::bukket'}, StringEquals={'aws:SourceAccount': 'AUTH_test'})
    turn_on(target)
    allow(target, principal={'AWS': '*'})
    refused('AccessDenied', turn_on, s3=target)
    target.delete_bucket_policy(Bucket='target')
    refused('AccessDenied', turn_on, s3=target)
    target.put_bucket_acl(Bucket='target', ACL='log-delivery-write')
    turn_on(target)
    refused('AccessDenied', turn_on, s3=client(OTHER))
    refused('AccessDenied', client(OTHER).get_bucket_logging, Bucket='bukket')


def test_lines(target, logs, client, refused, endpoint):
    turn_on(target)
    target.put_object(Bucket='bukket', Key='a "b/ü', Body=b'12345', ACL='public-read')
    target.get_object(Bucket='bukket', Key='a "b/ü', Range='bytes=1-2')
    target.head_object(Bucket='bukket', Key='a "b/ü')
    client(OTHER).get_object(Bucket='bukket', Key='a "b/ü')
    urllib.request.urlopen(target.generate_presigned_url('get_object', {'Bucket': 'bukket', 'Key': 'a "b/ü'}), timeout=10).close()
    urllib.request.urlopen(f'{endpoint}/bukket/a%20%22b/%C3%BC', timeout=10).close()
    refused('NoSuchKey', target.get_object, Bucket='bukket', Key='none')
    target.list_objects(Bucket='bukket')
    target.delete_object(Bucket='bukket', Key='a "b/ü')
    keys, lines = delivered(target, logs)
    assert len(keys) == 1 and re.fullmatch(r'log/\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-[0-9A-F]{16}', keys[0])
    for line in lines:
        assert (line['owner'], line['bucket'], line['address']) == (OWNER, 'bukket', '127.0.0.1')
    first = [(line['operation'], line['status'], line['error'], line['sent'], line['size']) for line in lines]
    assert first == [
        ('REST.PUT.LOGGING_STATUS', '200', '-', '-', '-'), ('REST.PUT.OBJECT', '200', '-', '-', '5'),
        ('REST.GET.OBJECT', '206', '-', '2', '5'), ('REST.HEAD.OBJECT', '200', '-', '-', '5'),
        *[('REST.GET.OBJECT', '200', '-', '5', '5')] * 3,
        ('REST.GET.OBJECT', '404', 'NoSuchKey', lines[7]['sent'], '-'), ('REST.GET.BUCKET', '200', '-', lines[8]['sent'], '-'),
        ('REST.DELETE.OBJECT', '204', '-', '-', '-')]
    assert lines[1]['key'] == 'a%20%22b/%C3%BC' and lines[1]['line'].startswith('PUT /bukket/a%20%22b/%C3%BC')
    stranger, presigned, nobody = lines[4:7]
    assert [(line['who'], line['auth'], line['signature'], line['acl']) for line in (lines[2], stranger, presigned, nobody)] == [
        (OWNER, 'AuthHeader', 'SigV4', '-'), (OTHER, 'AuthHeader', 'SigV4', 'Yes'),
        (OWNER, 'QueryString', presigned['signature'], '-'), ('-', '-', '-', 'Yes')]
    assert 'ignature=-' in presigned['line']


def test_parts_and_copies(target, logs):
    turn_on(target)
    upload = target.create_multipart_upload(Bucket='bukket', Key='o')['UploadId']
    named = {'Bucket': 'bukket', 'Key': 'o', 'UploadId': upload}
    part = target.upload_part(PartNumber=1, Body=b'body', **named)['ETag']
    target.complete_multipart_upload(MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': part}]}, **named)
    target.copy_object(Bucket='bukket', Key='p', CopySource='bukket/o')
    target.put_object_tagging(Bucket='bukket', Key='o', Tagging={'TagSet': []})
    target.delete_objects(Bucket='bukket', Delete={'Objects': [{'Key': 'o'}, {'Key': 'p', 'VersionId': 'x'}]})
    lines = delivered(target, logs)[1][1:]
    assert [line['operation'].removeprefix('REST.') for line in lines] == [
        'POST.UPLOADS', 'PUT.PART', 'POST.UPLOAD', 'COPY.OBJECT', 'PUT.OBJECT_TAGGING', 'POST.MULTI_OBJECT_DELETE',
        *['BATCH.DELETE.OBJECT'] * 2]
    assert [(line['key'], line['version'], line['status'], line['error']) for line in lines[6:]] == [
        ('o', '-', '204', '-'), ('p', 'x', '404', 'NoSuchVersion')]


def test_nothing_goes_where_it_may_not_any_more(target, logs):
    turn_on(target)
    target.put_object(Bucket='bukket', Key='o', Body=b'')
    allow(target, 'Deny')
    assert delivered(target, logs) == ([], [])


def test_folders_and_grants(target, logs, client):
    turn_on(target, TargetObjectKeyFormat={'PartitionedPrefix': {'PartitionDateSource': 'EventTime'}},
            TargetGrants=[{'Grantee': {'ID': OTHER, 'Type': 'CanonicalUser'}, 'Permission': 'READ'}])
    key, = delivered(target, logs)[0]
    assert re.fullmatch(r'log/test:tester/us-east-1/bukket/(\d{4})/(\d\d)/(\d\d)/\1-\2-\3-00-00-00-[0-9A-F]{16}', key)
    assert client(OTHER).get_object(Bucket='target', Key=key)['ContentType'] == 'text/plain'


def test_old_lines_go_before_new_ones_come(target, logs):
    turn_on(target)
    logs.age = -1
    target.head_bucket(Bucket='bukket')
    assert len(target.list_objects(Bucket='target')['Contents']) == 1
    logs.age = 300
    assert logs.deliver() == 0
    logs.stop()
    assert len(target.list_objects(Bucket='target')['Contents']) == 2
