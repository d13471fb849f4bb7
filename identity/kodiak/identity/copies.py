"""Keys of one identity server for the others: all folders of keys as one archive, taken over in an order that disturbs nobody.

Tokens and credentials of all servers must be good at each of them at any moment, also half-way through. So what is old comes
first, what signs or encrypts now after it, what comes next last; only then goes what the archive doesn't have.
"""
import contextlib
import io
import os
import re
import tarfile

from kodiak.common import tokens

from .keys import CURRENT

LARGEST = 64 * 1024
NAME = re.compile(r'(keys|credential-keys|saml)/((?:old-\d+-[\w-]+|current|next)\.pem|\d{1,9}|next)')


class Refused(Exception):
    """The archive is not what it should be, for people to read."""


def folders(core):
    """Name in the archive to path: the keys that sign tokens, those of stored credentials, those of SAML."""
    return {'keys': core.ring.path, 'credential-keys': core.crypt.path, 'saml': core.saml.keys.path}


def pack(core):
    """All keys as an archive (tar), which is as secret as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for label, path in folders(core).items():
            for name in _names(path, label):
                with open(os.path.join(path, name), 'rb') as file:
                    data = file.read()
                entry = tarfile.TarInfo(f'{label}/{name}')
                entry.size, entry.mode = len(data), 0o600
                archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def unpack(core, data, replace=False, revoked=()):
    """Take over the keys of an archive. Returns how many files there are now.

    :param replace: also where this server signs with a key that the archive doesn't have. :param revoked: ids of keys of which
        that is no matter.
    :raises Refused: nothing was changed.
    """
    found = _read(data)
    for needed in (f'keys/{CURRENT}', 'keys/next.pem'):
        if needed not in found:
            raise Refused(f'The archive has no {needed}: it is not one of "kodiak-identity keys export".')
    ours = os.path.join(core.ring.path, CURRENT)
    if os.path.exists(ours) and not replace:
        coming = {_key_id(text) for name, text in found.items() if name.startswith('keys/')}
        with open(ours, 'rb') as file:
            if (key_id := _key_id(file.read())) not in coming and key_id not in revoked:
                raise Refused(f'This server signs with key {key_id}, which the archive does not have: tokens that it signed would '
                              'be good no more. Export on this server instead, or say --replace.')
    for label, path in folders(core).items():
        names = sorted((name.partition('/')[2] for name in found if name.startswith(label + '/')), key=_order)
        if not names:
            continue
        os.makedirs(path, mode=0o700, exist_ok=True)
        for name in names:
            _put(os.path.join(path, name), found[f'{label}/{name}'])
        for name in set(_names(path, label)) - set(names):
            os.unlink(os.path.join(path, name))
    return len(found)


def _names(path, label):
    with contextlib.suppress(FileNotFoundError):
        return [name for name in sorted(os.listdir(path)) if NAME.fullmatch(f'{label}/{name}')]
    return []


def _order(name):
    if name.startswith('next'):
        return 3, 0, name
    return (2, 0, name) if name == CURRENT else (1, int(name) if name.isdigit() else 0, name)


def _read(data):
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode='r:') as archive:
            for entry in archive:
                if not entry.isreg() or not NAME.fullmatch(entry.name) or entry.size > LARGEST:
                    raise Refused(f'The archive has {entry.name!r}, which is no key.')
                found[entry.name] = archive.extractfile(entry).read()
    except tarfile.TarError as error:
        raise Refused(f'What was read is no archive of keys: {error}.') from error
    return found


def _key_id(text):
    return tokens.key_id_of(tokens.public_text(tokens.load_private(text)))


def _put(path, data):
    with contextlib.suppress(FileNotFoundError), open(path, 'rb') as file:
        if file.read() == data:
            return
    with open(os.open(path + '.tmp', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + '.tmp', path)
