"""S3's object ownership: whose an object is that somebody else puts into a bucket."""
import json

import pytest

OWNER, OTHER = 'test:tester', 'other:stranger'


@pytest.fixture
def other(client):
    return client(OTHER)


def own(s3, rule):
    s3.put_bucket_ownership_controls(Bucket='bukket', OwnershipControls={'Rules': [{'ObjectOwnership': rule}]})


@pytest.fixture
def open_bucket(s3):
    """Everybody may do everything in it."""
    s3.put_bucket_policy(Bucket='bukket', Policy=json.dumps({'Version': '2012-10-17', 'Statement': [{
        'Effect': 'Allow', 'Principal': '*', 'Action': 's3:*', 'Resource': ['arn:aws:s3:::bukket', 'arn:aws:s3:::bukket/*']}]}))
    return s3


def put(client, key, acl):
    more = {'ACL': acl} if acl else {}
    client.put_object(Bucket='bukket', Key=key, Body=b'body', **more)
    owners = [client.get_object_acl(Bucket='bukket', Key=key)['Owner']['ID']]
    client.copy_object(Bucket='bukket', Key=key + '-copy', CopySource=f'bukket/{key}', **more)
    owners.append(client.get_object_acl(Bucket='bukket', Key=key + '-copy')['Owner']['ID'])
    upload = client.create_multipart_upload(Bucket='bukket', Key=key + '-parts', **more)['UploadId']
    named = {'Bucket': 'bukket', 'Key': key + '-parts', 'UploadId': upload}
    part = client.upload_part(PartNumber=1, Body=b'body', **named)['ETag']
    client.complete_multipart_upload(MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': part}]}, **named)
    owners.append(client.get_object_acl(Bucket='bukket', Key=key + '-parts')['Owner']['ID'])
    assert len(set(owners)) == 1
    return owners[0]


def test_without_a_rule_or_with_that_of_the_writer(open_bucket, other):
    for rule in (None, 'ObjectWriter'):
        if rule:
            own(open_bucket, rule)
        for acl in (None, 'private', 'bucket-owner-full-control'):
            assert put(other, f'{rule}-{acl}', acl) == OTHER


def test_the_bucket_owner_preferred(open_bucket, other):
    own(open_bucket, 'BucketOwnerPreferred')
    assert [put(other, f'o-{acl}', acl) for acl in (None, 'private', 'bucket-owner-full-control')] == [OTHER, OTHER, OWNER]
    other.put_object_acl(Bucket='bukket', Key='o-None', ACL='public-read')


def test_the_bucket_owner_always(open_bucket, other, refused):
    own(open_bucket, 'BucketOwnerEnforced')
    assert [put(other, f'o-{acl}', acl) for acl in (None, 'bucket-owner-full-control')] == [OWNER, OWNER]
    code = 'AccessControlListNotSupported'
    refused(code, other.put_object, Bucket='bukket', Key='o', Body=b'', ACL='private')
    refused(code, other.put_object, Bucket='bukket', Key='o', Body=b'', GrantRead=f'id={OTHER}')
    refused(code, other.copy_object, Bucket='bukket', Key='p', CopySource='bukket/o-None', ACL='private')
    refused(code, other.create_multipart_upload, Bucket='bukket', Key='o', ACL='private')
    refused(code, other.put_bucket_acl, Bucket='bukket', ACL='private')
    refused(code, open_bucket.put_object_acl, Bucket='bukket', Key='o-None', ACL='public-read')
    open_bucket.put_object_acl(Bucket='bukket', Key='o-None', ACL='bucket-owner-full-control')


def test_lists_of_before_are_nothing_then(s3, other, client, refused):
    s3.put_object(Bucket='bukket', Key='o', Body=b'body', ACL='public-read')
    assert other.get_object(Bucket='bukket', Key='o')['Body'].read() == b'body'
    own(s3, 'BucketOwnerEnforced')
    refused('AccessDenied', other.get_object, Bucket='bukket', Key='o')
    assert [g['Permission'] for g in s3.get_object_acl(Bucket='bukket', Key='o')['Grants']] == ['FULL_CONTROL']
    s3.delete_bucket_ownership_controls(Bucket='bukket')
    assert other.get_object(Bucket='bukket', Key='o')['Body'].read() == b'body'


def test_a_bucket_with_a_list_is_not_without_lists(s3, refused):
    code = 'InvalidBucketAclWithObjectOwnership'
    s3.put_bucket_acl(Bucket='bukket', ACL='public-read')
    rule = {'Rules': [{'ObjectOwnership': 'BucketOwnerEnforced'}]}
    refused(code, s3.put_bucket_ownership_controls, Bucket='bukket', OwnershipControls=rule)
    s3.put_bucket_acl(Bucket='bukket', ACL='private')
    own(s3, 'BucketOwnerEnforced')
    refused(code, s3.create_bucket, Bucket='bukket2', ACL='public-read', ObjectOwnership='BucketOwnerEnforced')


@pytest.mark.parametrize('rule', ['ObjectWriter', 'BucketOwnerPreferred', 'BucketOwnerEnforced'])
def test_a_bucket_is_made_with_a_rule(s3, refused, rule):
    s3.create_bucket(Bucket='bukket2', ObjectOwnership=rule)
    found = s3.get_bucket_ownership_controls(Bucket='bukket2')['OwnershipControls']['Rules']
    assert found == [{'ObjectOwnership': rule}]
    refused('InvalidArgument', s3.create_bucket, Bucket='bukket3', ObjectOwnership='Nobody')
    s3.delete_bucket(Bucket='bukket2')


def test_grants_in_their_order_and_tags_by_their_keys(s3):
    who = f'id={OTHER}'
    s3.put_object(Bucket='bukket', Key='o', Body=b'', Tagging='b=1&a=2', GrantFullControl=who, GrantRead=who, GrantReadACP=who,
                  GrantWriteACP=who)
    assert [g['Permission'] for g in s3.get_object_acl(Bucket='bukket', Key='o')['Grants']] == [
        'READ', 'READ_ACP', 'WRITE_ACP', 'FULL_CONTROL']
    assert [t['Key'] for t in s3.get_object_tagging(Bucket='bukket', Key='o')['TagSet']] == ['a', 'b']


def test_a_list_or_tags_change_no_times(s3, eventually):
    import time
    for versions in (False, True):
        if versions:
            s3.put_bucket_versioning(Bucket='bukket', VersioningConfiguration={'Status': 'Enabled'})
        s3.put_object(Bucket='bukket', Key='o', Body=b'body')
        before = s3.head_object(Bucket='bukket', Key='o')['LastModified']
        eventually(lambda before=before: time.time() > before.timestamp() + 1)
        s3.put_object_acl(Bucket='bukket', Key='o', ACL='public-read')
        assert s3.head_object(Bucket='bukket', Key='o')['LastModified'] == before
        assert s3.list_objects(Bucket='bukket')['Contents'][0]['LastModified'] == before
        assert s3.list_object_versions(Bucket='bukket')['Versions'][0]['LastModified'] == before


def test_whose_an_upload_is(open_bucket, other):
    for rule, wanted in (('ObjectWriter', OTHER), ('BucketOwnerEnforced', OWNER)):
        own(open_bucket, rule)
        upload = other.create_multipart_upload(Bucket='bukket', Key='o')['UploadId']
        found = open_bucket.list_parts(Bucket='bukket', Key='o', UploadId=upload)
        listed = next(u for u in open_bucket.list_multipart_uploads(Bucket='bukket')['Uploads'] if u['UploadId'] == upload)
        for each in (found, listed):
            assert (each['Owner']['ID'], each['Initiator']['ID']) == (wanted, OTHER)
