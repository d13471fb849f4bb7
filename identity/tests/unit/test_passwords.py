import base64
import hashlib
import hmac

import bcrypt
import pytest

from kodiak.identity import passwords

SECRET = 'correct horse battery staple'


def ab64(data):
    return base64.b64encode(data).rstrip(b'=').decode().replace('+', '.')


def bcrypt_sha256():
    salt = bcrypt.gensalt(4)
    key = salt.decode().rsplit('$', 1)[1]
    digest = base64.b64encode(hmac.new(key.encode(), SECRET.encode(), hashlib.sha256).digest())
    checksum = bcrypt.hashpw(digest, salt).decode()[-31:]
    return f'$bcrypt-sha256$v=2,t=2b,r=4${key}${checksum}'


HASHES = {
    'bcrypt': bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4)).decode(),
    'bcrypt_sha256': bcrypt_sha256(),
    'scrypt': '$scrypt$ln=10,r=8,p=1$' + ab64(b'salt') + '$' + ab64(hashlib.scrypt(
        SECRET.encode(), salt=b'salt', n=1024, r=8, p=1, dklen=32)),
    'pbkdf2_sha512': '$pbkdf2-sha512$1000$' + ab64(b'salt') + '$' + ab64(hashlib.pbkdf2_hmac(
        'sha512', SECRET.encode(), b'salt', 1000)),
    'argon2id': passwords.Hasher(8192, 1).hash(SECRET),
    'our own secrets': passwords.fast_hash(SECRET),
}


@pytest.mark.parametrize('kind', HASHES)
def test_every_kind_of_hash_is_verified(kind):
    hasher = passwords.Hasher(8192, 1)
    assert hasher.verify(SECRET, HASHES[kind])
    assert not hasher.verify(SECRET + 'x', HASHES[kind])
    assert hasher.outdated(HASHES[kind]) is (kind != 'argon2id')


def test_a_weaker_argon2_is_outdated():
    assert passwords.Hasher().outdated(HASHES['argon2id'])
    assert not passwords.Hasher().outdated(passwords.Hasher().hash(SECRET))


@pytest.mark.parametrize('broken', [
    '', 'x', '$2b$', '$scrypt$', '$scrypt$ln=40,r=8,p=1$AA$AA', '$scrypt$ln=x$AA$AA', '$pbkdf2-sha512$x$AA$AA', '$argon2id$v=19$x',
    '$bcrypt-sha256$v=2$AA$AA', '$sha256$', '$unknown$'])
def test_a_broken_hash_verifies_nothing(broken):
    assert not passwords.Hasher(8192, 1).verify(SECRET, broken)


def test_bcrypt_reads_72_bytes_as_keystone_did():
    hashed = bcrypt.hashpw(b'x' * 72, bcrypt.gensalt(4)).decode()
    assert passwords.Hasher(8192, 1).verify('x' * 100, hashed)
