"""Backups: the two places they are kept in, and their form."""
import os
import urllib.parse

import pytest

from kodiak.common import client, config
from kodiak.storage_block import ticket
from kodiak.storage_block.backups import archive, swift
from kodiak.storage_block.backups.folder import FolderStore
from kodiak.storage_block.backups.swift import SwiftStore
from kodiak.storage_block.drivers.base import Fault

MIB = 1 << 20


class Swift:
    """A WSGI double of object storage."""

    def __init__(self):
        self.objects, self.containers, self.away = {}, set(), False

    def __call__(self, environ, start_response):
        status, data = self.answer(environ)
        start_response(f'{status} X', [('Content-Length', str(len(data)))])
        return [data]

    def answer(self, environ):
        method, parts = environ['REQUEST_METHOD'], environ['PATH_INFO'].split('/', 4)
        assert parts[1] == 'v1' and parts[2].startswith('AUTH_')
        container, name = parts[3], parts[4] if len(parts) > 4 else ''
        if self.away:
            return 503, b''
        if method == 'PUT' and not name:
            self.containers.add(container)
            return 201, b''
        if container not in self.containers:
            return 404, b''
        if not name:
            query = dict(urllib.parse.parse_qsl(environ['QUERY_STRING']))
            prefix, marker = query.get('prefix', ''), query.get('marker', '')
            found = sorted(each for each in self.objects if each.startswith(prefix) and each > marker)
            return 200, '\n'.join(found[:int(query['limit'])]).encode()
        if method == 'PUT':
            self.objects[name] = environ['wsgi.input'].read()
            return 201, b''
        if name not in self.objects:
            return 404, b''
        return (204, self.objects.pop(name) and b'') if method == 'DELETE' else (200, self.objects[name])


@pytest.fixture
def double():
    return Swift()


@pytest.fixture(params=['file', 'swift'])
def store(request, tmp_path, double):
    if request.param == 'file':
        return FolderStore(None, str(tmp_path / 'backups'))
    clients = client.Clients(config.load('storage-block', files=[]))
    clients.mount('object-store', double, token='service')
    return SwiftStore(clients, None)


def test_what_was_put_is_found_and_forgotten(store, monkeypatch):
    monkeypatch.setattr(swift, 'PAGE', 2)
    assert store.names('box', 'a/') == []
    store.prepare('box')
    for number in range(5):
        store.put('box', f'a/{number}', b'%d' % number)
    store.put('box', 'b/0', b'other')
    store.put('box', 'a/0', b'again')
    assert store.get('box', 'a/0') == b'again'
    assert sorted(store.names('box', 'a/')) == [f'a/{number}' for number in range(5)]
    for _ in range(2):
        store.delete('box', 'a/0')
    with pytest.raises(Fault) as caught:
        store.get('box', 'a/0')
    assert caught.value.final
    assert sorted(store.names('box', '')) == ['a/1', 'a/2', 'a/3', 'a/4', 'b/0']


def test_a_store_that_is_away_may_come_back(double, monkeypatch):
    clients = client.Clients(config.load('storage-block', files=[]))
    clients.mount('object-store', double, token='service')
    store = SwiftStore(clients, None)
    double.away = True
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    for ask in (lambda: store.get('box', 'a'), lambda: store.put('box', 'a', b''), lambda: store.names('box', 'a')):
        with pytest.raises(Fault) as caught:
            ask()
        assert not caught.value.final


@pytest.mark.parametrize('container', ['..', '.', '', 'a/b', '../x'])
def test_no_container_leads_out_of_the_folder(tmp_path, container):
    store = FolderStore(None, str(tmp_path / 'backups'))
    with pytest.raises(Fault):
        store.put(container, 'x', b'')
    with pytest.raises(Fault):
        store.put('box', '../../x', b'')


def test_whole_and_incremental(store, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, 'BLOCK', MIB)
    monkeypatch.setattr(archive, 'OBJECT', 2 * MIB)
    path, back = tmp_path / 'volume', tmp_path / 'back'
    with open(path, 'w+b') as file:
        file.write(os.urandom(5 * MIB + 17))
        file.truncate(20 * MIB + 5)
        file.flush()
        one = archive.create(store, 'box', 'one', file.fileno(), 20 * MIB + 5)
        assert one['object_count'] == 6 and one['metadata']['length'] == 20 * MIB + 5     # random data does not compress
        file.seek(3 * MIB)
        file.write(b'x' * 100)
        file.truncate(30 * MIB)
        file.seek(29 * MIB)
        file.write(b'grown')
        file.flush()
        two = archive.create(store, 'box', 'two', file.fileno(), 30 * MIB, one)
        three = archive.create(store, 'box', 'three', file.fileno(), 30 * MIB, two)
        assert two['size'] < 2 * MIB and three['object_count'] == 1
        file.seek(0)
        content = file.read()
    for record in (three, two):
        with open(back, 'w+b') as file:
            file.truncate(30 * MIB)
            archive.restore(store, record, file.fileno())
            file.seek(0)
            assert file.read() == content
    archive.delete(store, 'box', 'three')
    assert not any(name.startswith('backup-three/') for name in store.names('box', ''))
    with pytest.raises(Fault):
        archive.restore(store, three, -1)


def test_a_record_of_elsewhere_is_refused(store):
    with pytest.raises(Fault, match='is kept by'):
        archive.read_index(store, {'service': 'tape', 'container': 'box', 'prefix': 'backup-x'})
    store.prepare('box')
    store.put('box', 'backup-x/index', b'no index')
    with pytest.raises(Fault, match='damaged'):
        archive.read_index(store, {'service': store.name, 'container': 'box', 'prefix': 'backup-x'})


def test_progress_is_told_now_and_then_and_stops_what_is_not_wanted(monkeypatch):
    told, wanted = [], True
    now = [0.0]
    monkeypatch.setattr(ticket.time, 'monotonic', lambda: now[0])

    def tell(percent):
        told.append(percent)
        return wanted
    with ticket.working(ticket.Ticket(tell)):
        for done in range(10):
            now[0] += 1
            ticket.check(done, 10)
        assert told == [20, 50, 80]
        wanted = False
        now[0] += 5
        with pytest.raises(ticket.Cancelled):
            ticket.check(9, 10)
    ticket.check(1, 2)
