"""Disks of a stopped guest on their way from one host's agent to another's (a cold migration).

The conductor makes a token, tells its sha256 to the old host (operation ``migrate_out``) and the token to the new
one. The offer lies as a file beside the disks, so it outlives the agent; it ends when the guest is started here
again or removed. Bases go along: the image service may not have the image any more.
"""
import hashlib
import hmac
import json
import os
import re
import urllib.parse

import requests

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import qemu_img
from kodiak.compute.drivers.libvirt.folder import PART, backing_file

UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
OFFER = 'offer.json'
CHUNK = 1 << 20


def offer(folder, token_sha256):
    """Let who has the token fetch the disks; returns their listing."""
    with open(folder.file(OFFER + PART), 'w', encoding='utf-8') as file:
        json.dump({'token_sha256': token_sha256}, file)
    os.replace(folder.file(OFFER + PART), folder.file(OFFER))
    return _disks(folder)


def withdraw(folder):
    """End the offer."""
    folder.forget(OFFER)


def admits(folder, token):
    """True if the disks are on offer to who shows this token."""
    try:
        with open(folder.file(OFFER), encoding='utf-8') as file:
            wanted = json.load(file)['token_sha256']
    except FileNotFoundError:
        return False
    return hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), wanted)


def _disks(folder):
    names = folder.own_disks()
    if os.path.exists(folder.file('config.iso')):
        names.append('config.iso')
    disks = []
    for name in names:
        path = folder.file(name)
        below = backing_file(path) if name.endswith('.qcow2') else None
        found = folder.cache.find(os.path.basename(below)) if below else None
        if below and found is None:
            raise base.Fault('disk-missing', 'The host has lost the image under a disk of the instance.')
        disks.append({'name': name, 'size': os.path.getsize(path), 'base': found and {
            'key': found.key, 'format': found.format, 'size': found.size}})
    return disks


def listing(folder):
    """``(chunks, length)`` of the list of disks as JSON."""
    data = json.dumps(_disks(folder)).encode()
    return [data], len(data)


def open_file(folder, names):
    """A disk (``(name,)``) or a base of one (``('base', key)``) opened for reading, or None."""
    disks = _disks(folder)
    if len(names) == 1 and names[0] in {disk['name'] for disk in disks}:
        return open(folder.file(names[0]), 'rb')
    if len(names) == 2 and names[0] == 'base' and names[1] in {disk['base']['key'] for disk in disks if disk['base']}:
        return open(folder.cache.find(names[1]).path, 'rb')
    return None


def size(file):
    """The length of an open file."""
    return os.fstat(file.fileno()).st_size


def chunks(file):
    """The content of an open file, piece by piece."""
    while data := file.read(CHUNK):
        yield data


def fetch(source, folder):
    """Fetch all disks that are not here yet.

    :param source: an ``agent.state.Source``.
    :raises base.Fault: ``transfer``.
    """
    folder.make()
    with requests.Session() as session:
        session.headers['X-Transfer-Token'] = source.token
        session.trust_env = False
        for disk in _get(session, source.url).json():
            name = disk['name']
            if name != os.path.basename(name) or os.path.exists(folder.file(name)):
                continue
            part = folder.file(name + PART)
            _receive(session, f'{source.url}/{urllib.parse.quote(name)}', part)
            if disk['base']:
                found = _base(session, source, folder.cache, disk['base'])
                qemu_img.run('rebase', '-u', '-f', 'qcow2', '-F', found.format, '-b', found.path, part)
            os.chmod(part, 0o640 if name == 'config.iso' else 0o660)
            os.replace(part, folder.file(name))


def _base(session, source, cache, about):
    found = cache.find(about['key'])
    if found is None:
        part = os.path.join(cache.path, f'{about["key"]}.from-{os.path.basename(source.url)}.part')
        _receive(session, f'{source.url}/base/{urllib.parse.quote(about["key"])}', part)
        cache.adopt(part, about['key'], about['format'], about['size'])
        found = cache.find(about['key'])
    os.utime(found.path)
    return found


def _get(session, url, **options):
    try:
        response = session.get(url, timeout=(10, 120), **options)
    except requests.RequestException:
        raise base.Fault('transfer', 'The host that has the disks of the instance does not answer.')
    if response.status_code != 200:
        raise base.Fault('transfer', f'The host that has the disks of the instance answered {response.status_code}.')
    return response


def _receive(session, url, path):
    with _get(session, url, stream=True) as response, open(path, 'wb') as file:
        try:
            for chunk in response.iter_content(CHUNK):
                # Holes stay holes.
                if chunk.count(0) == len(chunk):
                    file.seek(len(chunk), os.SEEK_CUR)
                else:
                    file.write(chunk)
        except requests.RequestException:
            raise base.Fault('transfer', 'The host that has the disks of the instance broke off.')
        expected = int(response.headers['Content-Length'])
        if file.tell() != expected:
            raise base.Fault('transfer', 'The host that has the disks of the instance broke off.')
        file.truncate(expected)
        file.flush()
        os.fsync(file.fileno())
