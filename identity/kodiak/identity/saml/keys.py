"""Our keys for SAML: an RSA key with a certificate signs, a second one is published already and signs after the next rotation.

They stand beside the keys that sign tokens, one file each: the key, then its certificate.
"""
import datetime
import os
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

NEXT, CURRENT = 'next.pem', 'current.pem'
BITS = 3072
YEARS = 10


class Keys:
    """The keys in a folder, read again when a file changes."""

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()
        self._held = {}

    def _read(self, name):
        path = os.path.join(self.path, name)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        stamp = (status.st_mtime_ns, status.st_ino)
        held = self._held.get(name)
        if held is None or held[0] != stamp:
            with self._lock, open(path, 'rb') as file:
                data = file.read()
                held = self._held[name] = (stamp, serialization.load_pem_private_key(data, None),
                                           x509.load_pem_x509_certificate(data))
        return held[1:]

    def signing(self):
        """``(private key, x509.Certificate)`` that signs now; None where there is none."""
        return self._read(CURRENT)

    def certificates(self):
        """The certificates that others should trust: the present one, and the one that comes next."""
        return [found[1] for found in map(self._read, (CURRENT, NEXT)) if found]

    def decrypting(self):
        """The private keys with which others may have encrypted what they sent."""
        return [found[0] for found in map(self._read, (CURRENT, NEXT)) if found]

    def setup(self, name):
        """Make the folder and what keys it lacks; ``name`` is what their certificates call us. Returns how many were made."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        missing = [file for file in (CURRENT, NEXT) if not os.path.exists(os.path.join(self.path, file))]
        for file in missing:
            self._write(file, name)
        return len(missing)

    def rotate(self, name):
        """The key that was published signs from now on, and a new one is published."""
        self.setup(name)
        self._write('fresh.pem.new', name)
        os.rename(os.path.join(self.path, NEXT), os.path.join(self.path, CURRENT))
        os.rename(os.path.join(self.path, 'fresh.pem.new'), os.path.join(self.path, NEXT))

    def _write(self, file, name):
        key = rsa.generate_private_key(65537, BITS)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
                       .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                       .not_valid_after(now + datetime.timedelta(days=365 * YEARS)).sign(key, hashes.SHA256()))
        data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = os.path.join(self.path, file)
        with open(os.open(path + '.tmp', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as out:
            out.write(data + certificate.public_bytes(serialization.Encoding.PEM))
            out.flush()
            os.fsync(out.fileno())
        os.rename(path + '.tmp', path)
