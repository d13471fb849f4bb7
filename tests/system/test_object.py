"""Object storage as the clients of others meet it: openstack, swift, boto3, aws, rclone, a browser's form, a temporary URL."""
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
import uuid

import pytest

pytestmark = pytest.mark.system
MIB = 1 << 20
# Where each client comes from, for who runs these tests without .ci/run.
SOURCES = {'swift': 'python-swiftclient of test-requirements.txt', 'aws': 'awscli of test-requirements.txt',
           'rclone': "Debian's package rclone"}


class Program:
    """A client's command: ``program('ls', ...)`` returns what it prints; a failure fails the test."""

    def __init__(self, name, environ):
        beside = pathlib.Path(sys.executable).with_name(name)
        self.command = str(beside) if beside.exists() else shutil.which(name)
        if self.command is None:
            pytest.skip(f'{name} is not installed: {SOURCES[name]}')
        self.environ = {**{n: v for n, v in os.environ.items() if not n.startswith(('OS_', 'AWS_', 'RCLONE_', 'ST_'))}, **environ}

    def __call__(self, *arguments):
        done = subprocess.run([self.command, *map(str, arguments)], env=self.environ, capture_output=True, text=True, timeout=600,
                              check=False)
        assert done.returncode == 0, f'{self.command} {arguments}: {done.stdout[-800:]}{done.stderr[-1500:]}'
        return done.stdout


def digest(path):
    """SHA-256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def same(one, other):
    assert os.path.getsize(one) == os.path.getsize(other)
    assert digest(one) == digest(other)


@pytest.fixture
def sample(tmp_path):
    """A file of 3 MiB and some bytes."""
    path = tmp_path / 'sample.bin'
    path.write_bytes(os.urandom(3 * MIB + 77))
    return path


@pytest.fixture(scope='module')
def gigabyte(tmp_path_factory):
    """A file of 1 GiB; no two of its MiB are alike."""
    path = tmp_path_factory.mktemp('large') / 'gigabyte.bin'
    piece = os.urandom(MIB)
    with open(path, 'wb') as file:
        for number in range(1024):
            file.write(number.to_bytes(8, 'big') + piece[8:])
    yield path
    path.unlink()


@pytest.fixture(scope='session')
def account(sdk):
    """``url`` (of the demo project's account), ``root`` (of the S3 API)."""
    url = sdk.object_store.get_endpoint().rstrip('/')
    return types.SimpleNamespace(url=url, root=url.partition('/v1/')[0], path='/v1/' + url.partition('/v1/')[2])


@pytest.fixture(scope='session')
def keys(demo):
    """Keys of the S3 API: ``id``, ``secret``."""
    made = demo('ec2 credentials create')
    yield types.SimpleNamespace(id=made['access'], secret=made['secret'])
    demo.text('ec2 credentials delete', made['access'])


@pytest.fixture
def swift(sdk):
    """The ``swift`` command as user demo."""
    auth = sdk.config.config['auth']
    return Program('swift', {'OS_AUTH_URL': auth['auth_url'], 'OS_IDENTITY_API_VERSION': '3', **{
        f'OS_{name.upper()}': auth[name] for name in (
            'username', 'password', 'project_name', 'user_domain_name', 'user_domain_id', 'project_domain_name',
            'project_domain_id') if name in auth}})


@pytest.fixture
def s3(account, keys):
    """boto3's client."""
    boto3 = pytest.importorskip('boto3', reason='boto3 is not installed: test-requirements.txt')
    made = boto3.client('s3', endpoint_url=account.root, aws_access_key_id=keys.id, aws_secret_access_key=keys.secret,
                        region_name='us-east-1')
    with contextlib.closing(made):
        yield made


@pytest.fixture
def aws(account, keys, tmp_path):
    """``aws s3`` of this cloud."""
    program = Program('aws', {'AWS_ACCESS_KEY_ID': keys.id, 'AWS_SECRET_ACCESS_KEY': keys.secret, 'AWS_DEFAULT_REGION': 'us-east-1',
                              'AWS_CONFIG_FILE': str(tmp_path / 'aws.config'), 'AWS_EC2_METADATA_DISABLED': 'true'})
    return lambda *arguments: program('--endpoint-url', account.root, 's3', *arguments)


def test_openstack_container_and_object(demo, sample, tmp_path, unique):
    box, back = unique('osc'), tmp_path / 'back'
    demo.text('container create', box)
    demo.text('object create', box, sample, '--name', 'a folder/sample')
    rows = demo('object list', box, '--long')
    assert [(row['Name'], row['Bytes']) for row in rows] == [('a folder/sample', sample.stat().st_size)]
    assert rows[0]['Hash'] == hashlib.md5(sample.read_bytes()).hexdigest()
    demo.text('object save', box, 'a folder/sample', '--file', back)
    same(sample, back)
    demo.text('object delete', box, 'a folder/sample')
    assert demo('object list', box) == []
    demo.text('container delete', box)
    assert box not in [row['Name'] for row in demo('container list')]


def test_swift(swift, sample, tmp_path, unique):
    box, back = unique('swift'), tmp_path / 'back'
    swift('upload', box, sample, '--object-name', 'sample')
    assert swift('list', box).split() == ['sample']
    assert hashlib.md5(sample.read_bytes()).hexdigest() in swift('stat', box, 'sample')
    swift('download', box, 'sample', '-o', back)
    same(sample, back)
    swift('delete', box)
    assert box not in swift('list').split()


def test_boto3(s3, sample, tmp_path, unique):
    bucket, back = unique('boto'), tmp_path / 'back'
    s3.create_bucket(Bucket=bucket)
    s3.upload_file(str(sample), bucket, 'a folder/sample', ExtraArgs={'Metadata': {'colour': 'red'}})
    found, = s3.list_objects_v2(Bucket=bucket)['Contents']
    assert (found['Key'], found['Size']) == ('a folder/sample', sample.stat().st_size)
    assert found['ETag'] == f'"{hashlib.md5(sample.read_bytes()).hexdigest()}"'
    assert s3.head_object(Bucket=bucket, Key='a folder/sample')['Metadata'] == {'colour': 'red'}
    s3.download_file(bucket, 'a folder/sample', str(back))
    same(sample, back)
    s3.delete_object(Bucket=bucket, Key='a folder/sample')
    s3.delete_bucket(Bucket=bucket)
    assert bucket not in [item['Name'] for item in s3.list_buckets()['Buckets']]


def test_aws_s3(aws, sample, tmp_path, unique):
    bucket, back = unique('aws'), tmp_path / 'back'
    aws('mb', f's3://{bucket}')
    aws('cp', sample, f's3://{bucket}/sample')
    _, _, size, name = aws('ls', f's3://{bucket}/').split()
    assert (int(size), name) == (sample.stat().st_size, 'sample')
    aws('cp', f's3://{bucket}/sample', back)
    same(sample, back)
    folder = tmp_path / 'folder'
    folder.mkdir()
    for number in range(5):
        (folder / f'file {number}').write_bytes(os.urandom(1000 + number))
    aws('sync', folder, f's3://{bucket}/folder/')
    aws('sync', f's3://{bucket}/folder/', tmp_path / 'copy')
    for path in folder.iterdir():
        same(path, tmp_path / 'copy' / path.name)
    aws('rm', '--recursive', f's3://{bucket}/')
    assert aws('ls', f's3://{bucket}/') == ''
    aws('rb', f's3://{bucket}')
    assert bucket not in aws('ls')


@pytest.mark.parametrize('kind', ['s3', 'swift'])
def test_rclone(kind, account, keys, sdk, sample, tmp_path, unique):
    token = sdk.session.get_token()
    told = {'s3': {'type': 's3', 'provider': 'Ceph', 'endpoint': account.root, 'access_key_id': keys.id,
                   'secret_access_key': keys.secret},
            'swift': {'type': 'swift', 'storage_url': account.url, 'auth_token': token}}[kind]
    rclone = Program('rclone', {'RCLONE_CONFIG': str(tmp_path / 'none'), **{
        f'RCLONE_CONFIG_KODIAK_{name.upper()}': value for name, value in told.items()}})
    box, back = unique('rclone'), tmp_path / 'back'
    folder = tmp_path / 'folder'
    (folder / 'deep er').mkdir(parents=True)
    shutil.copy(sample, folder / 'sample')
    (folder / 'deep er' / 'short').write_text('short')
    rclone('mkdir', f'kodiak:{box}')
    rclone('copy', folder, f'kodiak:{box}/x')
    rows = json.loads(rclone('lsjson', '-R', '--files-only', '--hash', f'kodiak:{box}'))
    assert {row['Path']: row['Hashes']['md5'] for row in rows} == {
        'x/sample': hashlib.md5(sample.read_bytes()).hexdigest(), 'x/deep er/short': hashlib.md5(b'short').hexdigest()}
    rclone('check', folder, f'kodiak:{box}/x')
    rclone('copy', f'kodiak:{box}/x', back)
    same(sample, back / 'sample')
    assert (back / 'deep er' / 'short').read_text() == 'short'
    rclone('purge', f'kodiak:{box}')
    assert box not in rclone('lsd', 'kodiak:')


def test_a_gigabyte_in_segments(swift, gigabyte, tmp_path, unique):
    box, back = unique('segments'), tmp_path / 'back'
    swift('upload', box, gigabyte, '-S', 128 * MIB, '--use-slo', '--object-name', 'gigabyte')
    assert len(swift('list', f'{box}_segments').split()) == 8
    assert '1073741824' in swift('stat', box, 'gigabyte')
    swift('download', box, 'gigabyte', '-o', back)
    same(gigabyte, back)
    back.unlink()
    swift('delete', box, 'gigabyte')
    assert swift('list', f'{box}_segments') == ''
    for name in (box, f'{box}_segments'):
        swift('delete', name)


def test_a_gigabyte_in_parts_by_aws(aws, s3, gigabyte, tmp_path, unique):
    bucket, back = unique('parts'), tmp_path / 'back'
    aws('mb', f's3://{bucket}')
    aws('cp', '--no-progress', gigabyte, f's3://{bucket}/gigabyte')
    # awscli's parts are of 8 MiB, ten on their way at once.
    assert s3.head_object(Bucket=bucket, Key='gigabyte')['ETag'].endswith('-128"')
    aws('cp', '--no-progress', f's3://{bucket}/gigabyte', back)
    same(gigabyte, back)
    back.unlink()
    aws('rb', '--force', f's3://{bucket}')


def test_a_gigabyte_in_parts_by_boto3(s3, gigabyte, tmp_path, unique):
    from boto3.s3.transfer import TransferConfig
    bucket, back = unique('parts'), tmp_path / 'back'
    config = TransferConfig(multipart_chunksize=64 * MIB, max_concurrency=4)
    s3.create_bucket(Bucket=bucket)
    s3.upload_file(str(gigabyte), bucket, 'gigabyte', Config=config)
    found = s3.head_object(Bucket=bucket, Key='gigabyte', PartNumber=16)
    assert (found['PartsCount'], found['ContentLength']) == (16, 64 * MIB)
    s3.download_file(bucket, 'gigabyte', str(back), Config=config)
    same(gigabyte, back)
    back.unlink()
    s3.delete_object(Bucket=bucket, Key='gigabyte')
    s3.delete_bucket(Bucket=bucket)


@pytest.fixture
def signed_box(sdk, unique):
    """A container with a key that signs: ``name``, ``key``."""
    name, key = unique('signed'), uuid.uuid4().hex
    sdk.object_store.put(f'/{name}', headers={'X-Container-Meta-Temp-Url-Key': key}).raise_for_status()
    yield types.SimpleNamespace(name=name, key=key)
    for item in sdk.object_store.get(f'/{name}', params={'format': 'json'}).json():
        sdk.object_store.delete(f'/{name}/{item["name"]}')
    sdk.object_store.delete(f'/{name}')


def form(fields, files):
    """A browser's ``multipart/form-data``: (Content-Type, body). ``files``: of one ``input``, as (name, type, data)."""
    mark = '----WebKitFormBoundary' + uuid.uuid4().hex[:16]
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in fields.items()]
    for number, (name, kind, data) in enumerate(files, 1):
        parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="file{number}"; filename="{name}"\r\n'
                     f'Content-Type: {kind}\r\n\r\n'.encode() + data + b'\r\n')
    return f'multipart/form-data; boundary={mark}', b''.join((*parts, f'--{mark}--\r\n'.encode()))


def post(url, fields, files):
    """Status and headers of the answer to a form; redirects are not followed."""
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None
    kind, body = form(fields, files)
    request = urllib.request.Request(url, body, {'Content-Type': kind}, method='POST')
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers


def test_a_form_of_a_browser(account, signed_box, sdk):
    path, redirect, expires = f'{account.path}/{signed_box.name}/up-', 'https://example.org/done', int(time.time() + 300)
    text = f'{path}\n{redirect}\n{4 * MIB}\n2\n{expires}'
    fields = {'redirect': redirect, 'max_file_size': 4 * MIB, 'max_file_count': 2, 'expires': expires,
              'signature': hmac.new(signed_box.key.encode(), text.encode(), 'sha256').hexdigest()}
    files = [('photo.jpg', 'image/jpeg', os.urandom(2 * MIB + 5)), ('note.txt', 'text/plain', b'a note\r\n--not the end\r\n')]
    status, headers = post(account.root + path, fields, files)
    assert (status, headers['Location']) == (303, f'{redirect}?status=201&message=')
    for name, kind, data in files:
        found = sdk.object_store.get(f'/{signed_box.name}/up-{name}')
        assert (found.headers['Content-Type'].partition(';')[0], found.content) == (kind, data)
    assert post(account.root + path, {**fields, 'max_file_count': 3}, files)[0] == 401
    status, headers = post(account.root + path, fields, [('large.bin', 'application/octet-stream', bytes(4 * MIB + 1))])
    assert '?status=413&' in headers['Location']
    assert [row['name'] for row in sdk.object_store.get(f'/{signed_box.name}', params={'format': 'json'}).json()] == [
        'up-note.txt', 'up-photo.jpg']


def test_a_temporary_url(account, swift, signed_box, sample):
    path = f'{account.path}/{signed_box.name}/sample'
    put = urllib.request.Request(account.root + swift('tempurl', 'PUT', '60', path, signed_box.key).strip(), sample.read_bytes(),
                                 method='PUT')
    with urllib.request.urlopen(put, timeout=60) as answer:
        assert answer.status == 201
    url = account.root + swift('tempurl', 'GET', '60', path, signed_box.key).strip()
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == sample.read_bytes()
        assert 'filename="sample"' in answer.headers['Content-Disposition']
    for wrong in (url.replace('/sample?', '/other?'), url.replace('temp_url_expires=', 'temp_url_expires=1'),
                  account.root + swift('tempurl', 'GET', '60', path, 'another key').strip(), account.root + path):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(wrong, timeout=60)
        assert refused.value.code == 401
