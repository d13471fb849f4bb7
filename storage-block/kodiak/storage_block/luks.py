"""LUKS containers (version 1, AES in XTS): the header, made here.

qemu-img could make one too, but spends seconds on finding out how slow it can make a passphrase. Ours are random and of
256 bits, and nobody tries those. What is inside is read and written by QEMU, in guests and in its tools.
"""
import hashlib
import os
import struct
import uuid

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTOR = 512
KEY_BYTES = 64      # of AES-256; half of it for AES-128
STRIPES = 4000
ITERATIONS = 1000
SLOTS = 8
ACTIVE, DISABLED = 0x00AC71F3, 0x0000DEAD
HEAD = struct.Struct('>6sH32s32s32sII20s32sI40s')
SLOT = struct.Struct('>II32sII')
FIRST = 8                                                                       # sector of the first slot's key material
SLOT_SECTORS = -(-KEY_BYTES * STRIPES // SECTOR // 8) * 8
PAYLOAD = FIRST + SLOTS * SLOT_SECTORS
#: Bytes that a container is larger than what it holds.
OVERHEAD = PAYLOAD * SECTOR


def header(passphrase, key_bytes=KEY_BYTES):
    """The first :data:`OVERHEAD` bytes of a new container that ``passphrase`` (bytes) opens."""
    key, salt, digest_salt = os.urandom(key_bytes), os.urandom(32), os.urandom(32)
    digest = hashlib.pbkdf2_hmac('sha256', key, digest_salt, ITERATIONS, 20)
    head = HEAD.pack(b'LUKS\xba\xbe', 1, b'aes', b'xts-plain64', b'sha256', PAYLOAD, key_bytes, digest, digest_salt, ITERATIONS,
                     str(uuid.uuid4()).encode())
    slots = b''.join(
        SLOT.pack(ACTIVE if number == 0 else DISABLED, ITERATIONS if number == 0 else 0, salt if number == 0 else bytes(32),
                  FIRST + number * SLOT_SECTORS, STRIPES) for number in range(SLOTS))
    unlock = hashlib.pbkdf2_hmac('sha256', passphrase, salt, ITERATIONS, key_bytes)
    material = _encrypt(unlock, _split(key))
    return ((head + slots).ljust(FIRST * SECTOR, b'\0') + material).ljust(OVERHEAD, b'\0')


def _encrypt(key, data):
    pieces = []
    for sector in range(len(data) // SECTOR):
        cipher = Cipher(algorithms.AES(key), modes.XTS(sector.to_bytes(16, 'little'))).encryptor()
        pieces.append(cipher.update(data[sector * SECTOR:(sector + 1) * SECTOR]) + cipher.finalize())
    return b''.join(pieces)


def _split(key):
    """Spread the key over many stripes, of which each is needed to get it back."""
    mixed, stripes = bytes(len(key)), []
    for _ in range(STRIPES - 1):
        stripe = os.urandom(len(key))
        stripes.append(stripe)
        mixed = _diffuse(_xor(mixed, stripe))
    return b''.join([*stripes, _xor(mixed, key)])


def _diffuse(data):
    size = hashlib.sha256().digest_size
    return b''.join(hashlib.sha256(number.to_bytes(4, 'big') + data[start:start + size]).digest()[:len(data) - start]
                    for number, start in enumerate(range(0, len(data), size)))


def _xor(one, other):
    return (int.from_bytes(one, 'big') ^ int.from_bytes(other, 'big')).to_bytes(len(one), 'big')
