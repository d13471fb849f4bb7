"""What every exporter must do, with QEMU's own initiators as the guests'."""
import os
import signal
import subprocess
import threading
import time
import types
import uuid

import pytest

from kodiak.storage_block import qemu_img
from kodiak.storage_block.drivers import base
from kodiak.storage_block.drivers.file import FileDriver
from kodiak.storage_block.exports import nbd as nbd_exports
from kodiak.storage_block.exports import tgt as tgt_exports
from kodiak.storage_block.exports.base import Export

MIB = 1 << 20
SIZE = 32 * MIB


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """What does not answer is given up sooner than in life."""
    for module in (tgt_exports, nbd_exports):
        monkeypatch.setattr(module, 'TIMEOUT', 3)


@pytest.fixture
def driver(tmp_path):
    driver = FileDriver('file', types.SimpleNamespace(path=str(tmp_path / 'volumes')))
    driver.start()
    return driver


def make(driver, **values):
    """A new volume and an export of it."""
    volume = str(uuid.uuid4())
    driver.create(base.volume(volume), SIZE)
    return export_of(driver, volume, **values)


def export_of(driver, volume, **values):
    attachment = str(uuid.uuid4())
    return Export(**{'attachment_id': attachment, 'volume_id': volume, 'node': driver.open(base.volume(volume)),
                     'size': driver.size(base.volume(volume)), 'username': f'user-{attachment[:8]}',
                     'password': 'secret-of-20-letters', **values})


def guest(exporter, export, *commands, password=None, ok=True, read_only=False, patience=0):
    """What qemu-io prints that connects as a guest's QEMU would; over NBD it waits ``patience`` seconds for its server."""
    connection = exporter.connection(export)
    data = connection['data']
    objects, secret = [], None
    if connection['driver_volume_type'] == 'iscsi':
        secret = qemu_img.Secret((password or data['auth_password']).encode())
        objects = secret.options()
        node = {'driver': 'iscsi', 'transport': 'tcp', 'portal': data['target_portal'], 'target': data['target_iqn'],
                'lun': data['target_lun'], 'user': data['auth_username'], 'password-secret': qemu_img.KEY}
    else:
        server = {'type': 'inet', 'host': data['host'], 'port': str(data['port'])}
        node = {'driver': 'nbd', 'server': server, 'export': data['export'],
                'reconnect-delay': patience}
        if password is None:
            objects = ['--object', f'tls-creds-x509,id=tls,dir={exporter.client_certificates},endpoint=client']
            node['tls-creds'] = 'tls'
    if read_only:
        commands = ('-r', *commands)
    args = [each for command in commands for each in ([command] if command == '-r' else ['-c', command])]
    done = subprocess.run(
        ['qemu-io', *objects, *args, '--image-opts', qemu_img._opts(base.Node({'driver': 'raw', 'file': node}))],
        capture_output=True, text=True, timeout=60, check=False, pass_fds=[secret.fd] if secret else [])
    if secret:
        secret.__exit__()
    printed = done.stdout + done.stderr
    failed = done.returncode != 0 or 'failed' in printed or 'error' in printed.lower() or "can't open" in printed
    assert failed != ok, printed
    return printed


def test_a_guest_writes_and_reads(driver, exporter):
    made, _server = exporter
    export = make(driver)
    assert made.sync([export]) == {export.attachment_id: None}
    guest(made, export, 'write -P 7 1M 1M', 'flush')
    guest(made, export, 'read -P 7 1M 1M', 'read -P 0 2M 1M')
    with open(export.node.path, 'rb') as file:
        file.seek(MIB)
        assert file.read(MIB) == b'\x07' * MIB, 'the bytes are those of the volume'
    guest(made, export, 'discard 1M 1M')
    guest(made, export, 'read -P 0 1M 1M')


def test_nobody_gets_in_without_the_secret(driver, exporter):
    made, _server = exporter
    export = make(driver)
    made.sync([export])
    guest(made, export, 'read 0 1M', password='wrong-of-20-letters!', ok=False)


def test_an_export_that_goes_cuts_off_its_holder_alone(driver, exporter):
    made, _server = exporter
    first = make(driver)
    second = export_of(driver, first.volume_id)
    made.sync([first, second])
    guest(made, first, 'write -P 8 0 1M', 'flush')
    guest(made, second, 'read -P 8 0 1M')
    made.sync([second])
    guest(made, second, 'read -P 8 0 1M')
    guest(made, first, 'read 0 1M', ok=False)
    made.sync([])
    guest(made, second, 'read 0 1M', ok=False)


def test_a_holder_in_the_middle_of_its_work_is_cut_off(driver, exporter):
    made, _server = exporter
    export = make(driver)
    made.sync([export])
    outcome = []

    def work():
        try:
            guest(made, export, *['write -P 9 0 16M'] * 200, 'flush')
            outcome.append('done')
        except Exception:
            outcome.append('cut off')
    thread = threading.Thread(target=work)
    thread.start()
    made.sync([])
    # An initiator may go on trying to come back; the server lets it in no more.
    guest_free = export_of(driver, export.volume_id)
    assert made.sync([guest_free]) == {guest_free.attachment_id: None}
    guest(made, guest_free, 'read 0 1M')
    thread.join(90)
    assert not thread.is_alive()


def test_the_same_again_disturbs_nobody(driver, exporter):
    made, _server = exporter
    export = make(driver)
    made.sync([export])
    stop = threading.Event()

    def again():
        while not stop.is_set():
            made.sync([export])
    thread = threading.Thread(target=again)
    thread.start()
    try:
        guest(made, export, *['write -P 9 0 4M', 'read -P 9 0 4M'] * 20)
    finally:
        stop.set()
        thread.join(30)


def test_guests_wait_while_it_stands_still(driver, exporter):
    made, server = exporter
    export = make(driver)
    made.sync([export])
    printed, path = [], export.node.path
    with made.still():
        working = threading.Thread(target=lambda: printed.append(guest(made, export, 'write -P 6 0 1M')))
        working.start()
        time.sleep(0.3)
        with open(path, 'rb') as file:
            assert not any(file.read(MIB)) and not printed
    working.join(30)
    assert printed
    server.process.send_signal(signal.SIGSTOP)      # an agent that was killed in the middle leaves this behind
    with pytest.raises(base.Fault):
        made.sync([export])
    assert made.sync([export]) == {export.attachment_id: None}
    guest(made, export, 'read -P 6 0 1M')


def test_what_is_read_only_is_not_written(driver, exporter):
    made, _server = exporter
    writer = make(driver)
    reader = export_of(driver, writer.volume_id, read_only=True)
    made.sync([writer, reader])
    guest(made, writer, 'write -P 7 0 1M', 'flush')
    guest(made, reader, 'read -P 7 0 1M', read_only=True)
    guest(made, reader, 'write -P 8 0 1M', ok=False)


def test_a_server_that_died_gets_its_exports_back(driver, exporter):
    made, server = exporter
    export = make(driver)
    lost = threading.Event()
    made.sync([export])
    made._stopping.clear()
    made.start(lost.set)
    try:
        lost.wait(5)
        lost.clear()
        server.kill()
        with pytest.raises(base.Fault):
            made.sync([export])
        server.start()
        assert lost.wait(10), 'the exporter notices'
        assert made.sync([export]) == {export.attachment_id: None}
        guest(made, export, 'read 0 1M')
    finally:
        made.stop()
        made._stopping.clear()


def test_one_bad_export_spoils_no_other(driver, exporter):
    made, _server = exporter
    good = make(driver)
    bad = Export('3f5a62b4-62cf-4c7c-8a0b-2b7f6b0c2c11', str(uuid.uuid4()), base.Node.of_path('/nonexistent/volume'), SIZE,
                 username='bad-user', password='secret-of-20-letters')
    results = made.sync([bad, good])
    assert results[good.attachment_id] is None and results[bad.attachment_id]
    guest(made, good, 'read 0 1M')
    assert made.sync([good]) == {good.attachment_id: None}


def test_a_volume_that_grew_is_seen_by_who_holds_it(driver, exporter):
    made, _server = exporter
    export = make(driver)
    made.sync([export])

    def grow(times):
        driver.extend(base.volume(export.volume_id), times * SIZE)
        grown = export_of(driver, export.volume_id, attachment_id=export.attachment_id, username=export.username)
        made.resize([grown])
        assert made.sync([grown]) == {export.attachment_id: None}
    grow(4)
    guest(made, export, f'write -P 5 {4 * SIZE - MIB} 1M', f'read -P 5 {4 * SIZE - MIB} 1M')

    printed = []
    working = threading.Thread(target=lambda: printed.append(
        guest(made, export, *['write -P 9 0 1M', 'read -P 9 0 1M'] * 400, patience=20)))
    working.start()
    with open(export.node.path, 'rb', buffering=0) as file:
        deadline = time.monotonic() + 30
        while os.pread(file.fileno(), 1, 0) != b'\x09' and working.is_alive():
            assert time.monotonic() < deadline, 'the guest holds the volume'
            time.sleep(0.001)
    assert not printed, 'it is still at work'
    grow(5)
    working.join(60)
    assert printed, 'the guest met no error'
    guest(made, export, f'read -P 0 {5 * SIZE - MIB} 1M', 'read -P 9 0 1M')


def test_a_volume_that_grew_is_exported_in_its_size(driver, exporter):
    made, _server = exporter
    export = make(driver)
    made.sync([export])
    made.sync([])
    driver.extend(base.volume(export.volume_id), 2 * SIZE)
    grown = export_of(driver, export.volume_id)
    made.sync([grown])
    guest(made, grown, f'write -P 5 {2 * SIZE - MIB} 1M', f'read -P 5 {2 * SIZE - MIB} 1M')


def test_one_volume_at_two_back_ends(driver, exporter, tmp_path):
    """So it is while it moves."""
    made, _server = exporter
    other = FileDriver('other', types.SimpleNamespace(path=str(tmp_path / 'other')))
    other.start()
    here = make(driver)
    other.create(base.volume(here.volume_id), SIZE)
    there = export_of(other, here.volume_id)
    assert set(made.sync([here, there]).values()) == {None}
    guest(made, here, 'write -P 1 0 1M')
    guest(made, there, 'read -P 0 0 1M', 'write -P 2 0 1M')
    guest(made, here, 'read -P 1 0 1M')
    assert made.sync([there]) == {there.attachment_id: None}
    guest(made, there, 'read -P 2 0 1M')
