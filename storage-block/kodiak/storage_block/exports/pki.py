"""The certificates of NBD over TLS: an authority of the deployment, the server's, and that of hosts of guests."""
import datetime
import ipaddress
import os
import sys

YEARS = 10


def make(folder, names):
    """Make what is missing in ``folder``: ``ca-key.pem``, ``server/`` and ``client/``, each with what QEMU looks for there
    (``ca-cert.pem``, ``server-cert.pem`` and ``server-key.pem``, or ``client-cert.pem`` and ``client-key.pem``).

    :param names: host names and addresses under which clients reach the server.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def write(path, data, mode):
        fd = os.open(path + '.new', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, 'wb') as file:
            file.write(data)
        os.replace(path + '.new', path)

    def pem(key):
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def certificate(subject, key, issuer, issuer_key, extensions):
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key()).serial_number(
            x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
            now + datetime.timedelta(days=365 * YEARS))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256())

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority, paths = name('Kodiak block storage'), {}
    for kind in ('server', 'client'):
        paths[kind] = os.path.join(folder, kind)
        os.makedirs(paths[kind], mode=0o750, exist_ok=True)
    key_path, ca_path = os.path.join(folder, 'ca-key.pem'), os.path.join(folder, 'ca-cert.pem')
    if not (os.path.exists(key_path) and os.path.exists(ca_path)):
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        found = certificate(authority, key, authority, key, [(x509.BasicConstraints(True, 0), True), (usage, True)])
        write(key_path, pem(key), 0o600)
        write(ca_path, found.public_bytes(serialization.Encoding.PEM), 0o644)
        for path in paths.values():
            for left in os.listdir(path):
                os.unlink(os.path.join(path, left))
    with open(key_path, 'rb') as file:
        ca_key = serialization.load_pem_private_key(file.read(), None)
    with open(ca_path, 'rb') as file:
        ca = file.read()
    alternatives = [x509.IPAddress(ipaddress.ip_address(each)) if _is_address(each) else x509.DNSName(each) for each in names]
    for kind, purpose in (('server', ExtendedKeyUsageOID.SERVER_AUTH), ('client', ExtendedKeyUsageOID.CLIENT_AUTH)):
        place = os.path.join(paths[kind], kind)
        if os.path.exists(place + '-cert.pem') and (kind == 'client' or _names(place + '-cert.pem') == set(names)):
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(True, False, False, False, True, False, False, False, False)
        extensions = [(x509.BasicConstraints(False, None), True), (usage, True), (x509.ExtendedKeyUsage([purpose]), False)]
        if kind == 'server':
            extensions.append((x509.SubjectAlternativeName(alternatives), False))
        found = certificate(name(f'Kodiak NBD {kind}'), key, authority, ca_key, extensions)
        write(os.path.join(paths[kind], 'ca-cert.pem'), ca, 0o644)
        write(place + '-key.pem', pem(key), 0o640)
        write(place + '-cert.pem', found.public_bytes(serialization.Encoding.PEM), 0o644)
    return paths


def _is_address(text):
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _names(path):
    from cryptography import x509
    with open(path, 'rb') as file:
        found = x509.load_pem_x509_certificate(file.read())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def main():
    """``kodiak-storage-block-pki FOLDER NAME...``: makes the certificates of NBD in FOLDER, for a server of these names."""
    if len(sys.argv) < 3 or sys.argv[1].startswith('-'):
        sys.exit(main.__doc__)
    make(sys.argv[1], sys.argv[2:])
