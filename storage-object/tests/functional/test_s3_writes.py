"""What S3's clients write: conditions, checksums of bodies and of parts, marks of deletion where versions are suspended."""
import base64
import hashlib
import threading
import zlib

import pytest
from botocore.exceptions import ClientError

MIB = 1 << 20


def b64(data):
    return base64.b64encode(data).decode()


def crc32(data):
    return b64(zlib.crc32(data).to_bytes(4, 'big'))


def sha256(data):
    return b64(hashlib.sha256(data).digest())


# conditions


def put(s3, body=b'x', key='o', **more):
    return s3.put_object(Bucket='bukket', Key=key, Body=body, **more)


@pytest.fixture(params=[None, 'Enabled', 'Suspended'])
def bucket(request, s3):
    """The bucket ``bukket``, with and without versions."""
    for status in ('Enabled', request.param) if request.param else ():
        s3.put_bucket_versioning(Bucket='bukket', VersioningConfiguration={'Status': status})
    return s3


def test_a_write_hangs_on_what_is_there(bucket, refused):
    refused('NoSuchKey', put, s3=bucket, IfMatch='"d41d8cd98f00b204e9800998ecf8427e"')
    etag = put(bucket, b'one', IfNoneMatch='*')['ETag']
    refused('PreconditionFailed', put, s3=bucket, IfNoneMatch='*')
    refused('PreconditionFailed', put, s3=bucket, body=b'two', IfMatch='"00000000000000000000000000000000"')
    refused('PreconditionFailed', put, s3=bucket, body=b'two', IfNoneMatch=etag)
    other = put(bucket, b'two', IfMatch=etag)['ETag']
    refused('PreconditionFailed', put, s3=bucket, body=b'three', IfMatch=etag)
    assert put(bucket, b'three', IfMatch=other, IfNoneMatch=etag)
    assert put(bucket, b'four', IfMatch='*')
    # A change of its tags is none of the object.
    bucket.put_object_tagging(Bucket='bukket', Key='o', Tagging={'TagSet': [{'Key': 'a', 'Value': 'b'}]})
    assert put(bucket, b'five', IfMatch=bucket.head_object(Bucket='bukket', Key='o')['ETag'])
    assert bucket.get_object(Bucket='bukket', Key='o')['Body'].read() == b'five'


def test_copies_and_uploads_hang_on_what_is_there(bucket, refused):
    put(bucket, b'source', key='s')
    etag = put(bucket, b'one')['ETag']

    def copy(**more):
        return bucket.copy_object(Bucket='bukket', Key='o', CopySource='bukket/s', **more)

    def upload(**more):
        made = bucket.create_multipart_upload(Bucket='bukket', Key='o')['UploadId']
        part = bucket.upload_part(Bucket='bukket', Key='o', UploadId=made, PartNumber=1, Body=b'part')
        return bucket.complete_multipart_upload(Bucket='bukket', Key='o', UploadId=made, MultipartUpload={'Parts': [
            {'PartNumber': 1, 'ETag': part['ETag']}]}, **more)
    refused('PreconditionFailed', copy, IfNoneMatch='*')
    refused('PreconditionFailed', copy, IfMatch='"0"')
    etag = copy(IfMatch=etag)['CopyObjectResult']['ETag']
    refused('PreconditionFailed', upload, IfNoneMatch='*')
    refused('PreconditionFailed', upload, IfMatch='"0"')
    etag = upload(IfMatch=etag)['ETag']
    assert etag.endswith('-1"')
    refused('PreconditionFailed', copy, IfMatch='"0"')
    assert put(bucket, b'last', IfMatch=etag)


def test_sources_of_copies_have_conditions(s3, refused):
    etag, old = put(s3)['ETag'], 'Mon, 01 Jan 2001 00:00:00 GMT'

    def copy(**more):
        conditions = {f'CopySource{name}': value for name, value in more.items()}
        return s3.copy_object(Bucket='bukket', Key='copy', CopySource='bukket/o', **conditions)
    for good in ({'IfMatch': etag}, {'IfNoneMatch': '"0"'}, {'IfModifiedSince': old}, {'IfMatch': etag, 'IfUnmodifiedSince': old}):
        assert copy(**good)
    for bad in ({'IfMatch': '"0"'}, {'IfNoneMatch': etag}, {'IfUnmodifiedSince': old},
                {'IfNoneMatch': etag, 'IfModifiedSince': old}):
        refused('PreconditionFailed', copy, **bad)


def test_deletions_hang_on_what_is_there(bucket, refused):
    found = put(bucket, b'one')

    def delete(**more):
        return bucket.delete_object(Bucket='bukket', Key='o', **more)
    refused('PreconditionFailed', delete, IfMatch='"0"')
    refused('PreconditionFailed', delete, IfMatchSize=17)
    made = bucket.delete_objects(Bucket='bukket', Delete={'Objects': [{'Key': 'o', 'ETag': '"0"'}]})
    assert made['Errors'][0]['Code'] == 'PreconditionFailed'
    assert delete(IfMatch=found['ETag'], IfMatchSize=3)
    refused('NoSuchKey', bucket.get_object, Bucket='bukket', Key='o')
    put(bucket, b'two', key='p')
    made = bucket.delete_objects(Bucket='bukket', Delete={'Objects': [{'Key': 'p', 'Size': 3}, {'Key': 'q', 'ETag': '"0"'}]})
    assert 'Errors' not in made


@pytest.mark.parametrize('servers', ['real', 'coded'], indirect=True)
@pytest.mark.parametrize('size', [0, 100, 3 * MIB])
def test_of_writers_that_race_one_wins(s3, size):
    etag = put(s3, b'before')['ETag']
    done, refusals, go = [], [], threading.Barrier(4)

    def write(number):
        go.wait(20)
        try:
            done.append((number, put(s3, bytes([number]) * (size + number), IfMatch=etag)['ETag']))
        except ClientError as problem:
            refusals.append(problem.response['Error']['Code'])
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (number, etag), = done
    # The second: it is not known yet who wins. The third: on a busy machine servers answer too late.
    assert len(refusals) == 3 and set(refusals) <= {'PreconditionFailed', 'ConditionalRequestConflict', 'ServiceUnavailable'}
    for _ in range(6):      # of whatever replica
        assert s3.get_object(Bucket='bukket', Key='o')['Body'].read() == bytes([number]) * (size + number)
    row, = s3.list_objects_v2(Bucket='bukket')['Contents']
    assert (row['ETag'], row['Size']) == (etag, size + number)


# checksums


KINDS = {'CRC32': crc32(b'123456789'), 'CRC32C': b64(bytes.fromhex('e3069283')),
         'CRC64NVME': b64(bytes.fromhex('ae8b14860a799888')),
         'SHA1': b64(hashlib.sha1(b'123456789').digest()), 'SHA256': sha256(b'123456789')}


@pytest.mark.parametrize('kind', KINDS)
def test_a_checksum_is_checked_and_kept(s3, kind, refused):
    name, value = f'Checksum{kind}', KINDS[kind]
    made = put(s3, b'123456789', **{name: value})
    assert (made[name], made['ChecksumType']) == (value, 'FULL_OBJECT')
    found = s3.get_object(Bucket='bukket', Key='o', ChecksumMode='ENABLED')
    assert (found[name], found['Body'].read()) == (value, b'123456789')
    assert name not in s3.head_object(Bucket='bukket', Key='o')
    refused('BadDigest', put, s3=s3, body=b'another', **{name: value})
    shown = s3.get_object_attributes(Bucket='bukket', Key='o', ObjectAttributes=['Checksum', 'ObjectSize', 'ETag', 'StorageClass'])
    assert shown['Checksum'] == {name: value, 'ChecksumType': 'FULL_OBJECT'}
    assert (shown['ObjectSize'], shown['ETag']) == (9, made['ETag'].strip('"'))
    copy = s3.copy_object(Bucket='bukket', Key='copy', CopySource='bukket/o')['CopyObjectResult']
    assert copy[name] == value
    copy = s3.copy_object(Bucket='bukket', Key='copy', CopySource='bukket/o', ChecksumAlgorithm='SHA256')['CopyObjectResult']
    assert copy['ChecksumSHA256'] == KINDS['SHA256']
    assert s3.head_object(Bucket='bukket', Key='copy', ChecksumMode='ENABLED')['ChecksumSHA256'] == KINDS['SHA256']


@pytest.mark.parametrize('body', [b'', b'x' * 10, bytes(2 * MIB)])
def test_a_checksum_may_follow_the_body(s3, body):
    made = put(s3, body)        # (boto3 makes a CRC-32, in a trailer)
    assert made['ChecksumCRC32'] == crc32(body)
    assert s3.head_object(Bucket='bukket', Key='o', ChecksumMode='ENABLED')['ChecksumCRC32'] == crc32(body)


def parts_of(s3, bodies, kind, **more):
    made = s3.create_multipart_upload(Bucket='bukket', Key='m', ChecksumAlgorithm=kind, **more)
    assert made['ChecksumAlgorithm'] == kind
    found = [s3.upload_part(Bucket='bukket', Key='m', UploadId=made['UploadId'], PartNumber=number, Body=body,
                            ChecksumAlgorithm=kind) for number, body in enumerate(bodies, 1)]
    return made['UploadId'], [{'PartNumber': number, 'ETag': part['ETag'], f'Checksum{kind}': part[f'Checksum{kind}']}
                              for number, part in enumerate(found, 1)]


@pytest.mark.parametrize('kind, type', [('CRC32', 'FULL_OBJECT'), ('CRC32', 'COMPOSITE'), ('SHA256', 'COMPOSITE'), ('SHA1', None)])
def test_parts_have_one_checksum_together(s3, kind, type, refused):
    bodies = [b'a' * (5 * MIB), b'b' * (5 * MIB + 1), b'c']
    upload, parts = parts_of(s3, bodies, kind, **({'ChecksumType': type} if type else {}))
    name, type = f'Checksum{kind}', type or 'COMPOSITE'
    listed = s3.list_parts(Bucket='bukket', Key='m', UploadId=upload)
    assert (listed['ChecksumAlgorithm'], listed['ChecksumType']) == (kind, type)
    assert [part[name] for part in listed['Parts']] == [part[name] for part in parts]
    row, = s3.list_multipart_uploads(Bucket='bukket')['Uploads']
    assert (row['ChecksumAlgorithm'], row['ChecksumType'], row['Initiator']['ID']) == (kind, type, 'test:tester')

    def complete(parts=parts, **more):
        return s3.complete_multipart_upload(Bucket='bukket', Key='m', UploadId=upload, MultipartUpload={'Parts': parts}, **more)
    refused('BadDigest', complete, **{name: listed['Parts'][0][name]})
    refused('InvalidPart', complete, parts=[{**parts[0], name: parts[1][name]}, *parts[1:]])
    refused('InvalidRequest', complete, MpuObjectSize=7)
    made = complete(MpuObjectSize=10 * MIB + 2)
    if type == 'FULL_OBJECT':
        whole = crc32(b''.join(bodies))
    else:
        raw = b''.join(base64.b64decode(part[name]) for part in parts)
        whole = {'CRC32': crc32(raw), 'SHA256': sha256(raw), 'SHA1': b64(hashlib.sha1(raw).digest())}[kind] + '-3'
    assert (made[name], made['ChecksumType']) == (whole, type)
    found = s3.get_object(Bucket='bukket', Key='m', ChecksumMode='ENABLED')
    assert (found[name], found['ChecksumType'], found['Body'].read()) == (whole, type, b''.join(bodies))
    assert s3.head_object(Bucket='bukket', Key='m', PartNumber=2, ChecksumMode='ENABLED')[name] == parts[1][name]
    shown = s3.get_object_attributes(Bucket='bukket', Key='m', ObjectAttributes=['ObjectParts', 'Checksum'], MaxParts=2)
    assert shown['Checksum'][name] == whole
    assert (shown['ObjectParts']['TotalPartsCount'], shown['ObjectParts']['IsTruncated']) == (3, True)
    assert [(part['PartNumber'], part['Size'], part[name]) for part in shown['ObjectParts']['Parts']] == [
        (1, 5 * MIB, parts[0][name]), (2, 5 * MIB + 1, parts[1][name])]
    copy = s3.copy_object(Bucket='bukket', Key='copy', CopySource='bukket/m')['CopyObjectResult']
    assert copy['ChecksumType'] == 'FULL_OBJECT'
    assert s3.get_object(Bucket='bukket', Key='copy', ChecksumMode='ENABLED')['Body'].read() == b''.join(bodies)


def test_a_part_is_of_its_upload_s_kind(s3, refused):
    upload, _ = parts_of(s3, [b'x'], 'CRC32')
    refused('InvalidRequest', s3.upload_part, Bucket='bukket', Key='m', UploadId=upload, PartNumber=1, Body=b'x',
            ChecksumSHA256=sha256(b'x'))
    copied = s3.put_object(Bucket='bukket', Key='source', Body=b'0123456789') and s3.upload_part_copy(
        Bucket='bukket', Key='m', UploadId=upload, PartNumber=1, CopySource='bukket/source', CopySourceRange='bytes=2-4')
    assert copied['CopyPartResult']['ChecksumCRC32'] == crc32(b'234')
    for wrong in ({'ChecksumAlgorithm': 'SHA1', 'ChecksumType': 'FULL_OBJECT'}, {'ChecksumAlgorithm': 'MD4'},
                  {'ChecksumAlgorithm': 'CRC64NVME', 'ChecksumType': 'COMPOSITE'}):
        refused('InvalidRequest', s3.create_multipart_upload, Bucket='bukket', Key='m', **wrong)


# versions that are suspended


def suspend(s3, status='Suspended'):
    s3.put_bucket_versioning(Bucket='bukket', VersioningConfiguration={'Status': status})


def history(s3):
    """``[(version id, whether it is a mark, whether it is the latest)]``, the newest first."""
    found = s3.list_object_versions(Bucket='bukket', Prefix='o')
    rows = [(row['LastModified'], row['VersionId'], row['IsLatest'], mark) for kind, mark in (
        ('Versions', False), ('DeleteMarkers', True)) for row in found.get(kind, [])]
    return sorted(((version, mark, latest) for _, version, latest, mark in rows), key=lambda row: not row[2])


def test_a_deletion_leaves_a_mark_where_versions_are_suspended(s3, refused):
    suspend(s3, 'Enabled')
    first = put(s3, b'first')['VersionId']
    suspend(s3)
    gone = s3.delete_object(Bucket='bukket', Key='o')
    assert (gone['DeleteMarker'], gone['VersionId']) == (True, 'null')
    assert history(s3) == [('null', True, True), (first, False, False)]
    answer = refused('NoSuchKey', s3.get_object, Bucket='bukket', Key='o')
    assert answer['ResponseMetadata']['HTTPHeaders']['x-amz-version-id'] == 'null'
    refused('MethodNotAllowed', s3.get_object, Bucket='bukket', Key='o', VersionId='null')
    # A second one takes its place, and so does what is put.
    s3.delete_object(Bucket='bukket', Key='o')
    assert history(s3) == [('null', True, True), (first, False, False)]
    put(s3, b'null')
    assert history(s3) == [('null', False, True), (first, False, False)]
    s3.delete_object(Bucket='bukket', Key='o')
    gone = s3.delete_object(Bucket='bukket', Key='o', VersionId='null')
    assert (gone['DeleteMarker'], gone['VersionId']) == (True, 'null')
    assert history(s3) == [(first, False, True)]
    assert s3.get_object(Bucket='bukket', Key='o')['Body'].read() == b'first'


def test_what_had_no_version_keeps_its_name(s3, refused):
    put(s3, b'null')
    suspend(s3, 'Enabled')
    first = put(s3, b'first')['VersionId']
    assert history(s3) == [(first, False, True), ('null', False, False)]
    found = s3.get_object(Bucket='bukket', Key='o', VersionId='null', ChecksumMode='ENABLED')
    assert (found['Body'].read(), found['VersionId']) == (b'null', 'null')
    page = s3.list_object_versions(Bucket='bukket', MaxKeys=1)
    page = s3.list_object_versions(Bucket='bukket', KeyMarker=page['NextKeyMarker'], VersionIdMarker=page['NextVersionIdMarker'])
    assert [row['VersionId'] for row in page['Versions']] == ['null']
    s3.delete_object(Bucket='bukket', Key='o', VersionId=first)
    assert s3.head_object(Bucket='bukket', Key='o')['VersionId'] == 'null'
    s3.delete_objects(Bucket='bukket', Delete={'Objects': [{'Key': 'o', 'VersionId': 'null'}]})
    refused('NoSuchKey', s3.get_object, Bucket='bukket', Key='o')
    assert history(s3) == []


def test_a_version_in_parts_outlasts_its_name(s3):
    suspend(s3, 'Enabled')
    upload, parts = parts_of(s3, [b'part'], 'CRC32')
    version = s3.complete_multipart_upload(Bucket='bukket', Key='m', UploadId=upload, MultipartUpload={'Parts': parts})['VersionId']
    suspend(s3)
    s3.delete_object(Bucket='bukket', Key='m')
    assert s3.get_object(Bucket='bukket', Key='m', VersionId=version)['Body'].read() == b'part'


# who asks, and whom it is


def test_the_owner_that_is_expected(s3, refused):
    put(s3)
    assert s3.get_object(Bucket='bukket', Key='o', ExpectedBucketOwner='test:tester')
    refused('AccessDenied', s3.get_object, Bucket='bukket', Key='o', ExpectedBucketOwner='somebody')
    refused('AccessDenied', s3.copy_object, Bucket='bukket', Key='copy', CopySource='bukket/o',
            ExpectedSourceBucketOwner='somebody')


def test_buckets_come_in_pages(s3):
    for name in ('abc', 'abd', 'xyz'):
        s3.create_bucket(Bucket=name)
    page = s3.list_buckets(MaxBuckets=2)
    assert [row['Name'] for row in page['Buckets']] == ['abc', 'abd']
    page = s3.list_buckets(MaxBuckets=2, ContinuationToken=page['ContinuationToken'])
    assert [row['Name'] for row in page['Buckets']] == ['bukket', 'xyz']
    assert 'ContinuationToken' not in page
    assert [row['Name'] for row in s3.list_buckets(Prefix='ab')['Buckets']] == ['abc', 'abd']


# what is overwritten


@pytest.mark.parametrize('how', ['put', 'copy', 'upload', 'Swift'])
def test_parts_go_with_what_they_were_parts_of(s3, swift, how):
    def listed():
        found = swift('GET', '/v1/AUTH_test/bukket+segments').body.decode().split()
        return [name for name in found if name.startswith('m/')]

    def upload():
        made, parts = parts_of(s3, [b'part'], 'CRC32')
        s3.complete_multipart_upload(Bucket='bukket', Key='m', UploadId=made, MultipartUpload={'Parts': parts})
    upload()
    first, = listed()
    put(s3, b'other', key='n')
    assert listed() == [first]
    if how == 'put':
        put(s3, b'new', key='m')
    elif how == 'copy':
        s3.copy_object(Bucket='bukket', Key='m', CopySource='bukket/m', MetadataDirective='REPLACE', Metadata={'a': 'b'})
        assert s3.get_object(Bucket='bukket', Key='m')['Body'].read() == b'part'
    elif how == 'upload':
        upload()
        assert s3.get_object(Bucket='bukket', Key='m')['Body'].read() == b'part'
        assert len(listed()) == 1 and listed() != [first]
        return
    else:
        swift('PUT', '/v1/AUTH_test/bukket/m', b'new')
        assert listed() == [first]
        return
    assert listed() == []


def test_what_is_said_of_a_body_twice_or_wrongly(s3, client, refused):
    s3 = client(request_checksum_calculation='when_required')

    def put(code, **headers):
        made = {name.replace('_', '-'): value for name, value in headers.items()}

        def add(params, **_):
            params['headers'].update(made)
        s3.meta.events.register('before-call.s3.PutObject', add)
        problem = refused(code, s3.put_object, Bucket='bukket', Key='o', Body=b'body')
        s3.meta.events.unregister('before-call.s3.PutObject', add)
        return problem['Error']
    right = base64.b64encode(zlib.crc32(b'body').to_bytes(4, 'big')).decode()
    single = 'Expecting a single x-amz-checksum- header'
    assert put('InvalidRequest', x_amz_checksum_crc32=right, x_amz_trailer='x-amz-checksum-crc32')['Message'] == single
    assert put('InvalidRequest', x_amz_trailer='x-amz-checksum-crc32, x-amz-checksum-crc32')['Message'].startswith(single + '. ')
    assert 'algorithm type' in put('InvalidRequest', x_amz_checksum_other=right)['Message']
    put('MalformedTrailerError', x_amz_trailer='x-amz-checksum-crc32')
    wrong = hashlib.md5(b'other')
    assert put('BadDigest', Content_MD5=base64.b64encode(wrong.digest()).decode())['ExpectedDigest'] == wrong.hexdigest()


def test_a_hash_is_held_to_whatever_is_signed(s3, client, refused):
    old = client(version='s3', request_checksum_calculation='when_required')
    made = {}
    old.meta.events.register('before-call.s3.PutObject', lambda params, **_: params['headers'].update(made))
    for text in ('INVALID', hashlib.sha256(b'other').hexdigest().upper()):
        made['x-amz-content-sha256'] = text
        problem = refused('XAmzContentSHA256Mismatch', old.put_object, Bucket='bukket', Key='o', Body=b'body')
        assert problem['Error']['ClientComputedContentSHA256'] == text
    made['x-amz-content-sha256'] = hashlib.sha256(b'body').hexdigest()
    old.put_object(Bucket='bukket', Key='o', Body=b'body')


def test_a_wrong_signature_is_told_what_was_to_be_signed(client, refused):
    for version, first in (('s3v4', 'AWS4-HMAC-SHA256\n'), ('s3', 'GET\n')):
        wrong = client('test:guest', version)

        def spoil(request, **_):
            request.headers['Authorization'] = request.headers['Authorization'][:-4] + b'AAA='
        wrong.meta.events.register('before-send.s3.ListBuckets', spoil)
        error = refused('SignatureDoesNotMatch', wrong.list_buckets)['Error']
        assert error['AWSAccessKeyId'] == 'test:guest' and error['StringToSign'].startswith(first)
        assert ('CanonicalRequest' in error) == (version == 's3v4')


def test_chunks_that_a_signature_knows_nothing_of(s3, client, refused):
    old = client(version='s3', request_checksum_calculation='when_required')
    made = {'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'}
    old.meta.events.register('before-call.s3.PutObject', lambda params, **_: params['headers'].update(made))
    refused('MissingContentLength', old.put_object, Bucket='bukket', Key='o', Body=b'body')
    made['x-amz-decoded-content-length'] = '4'
    refused('XAmzContentSHA256Mismatch', old.put_object, Bucket='bukket', Key='o', Body=b'body')


@pytest.mark.parametrize('said, kept', [('gzip, aws-chunked', 'gzip'), ('aws-chunked', None)])
def test_the_coding_of_a_transfer_is_not_the_objects(s3, said, kept):
    s3.put_object(Bucket='bukket', Key='o', Body=b'body', ContentEncoding=said)
    assert s3.head_object(Bucket='bukket', Key='o').get('ContentEncoding') == kept
