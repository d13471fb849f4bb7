"""Images through the stock client."""
import hashlib
import os

import pytest

pytestmark = pytest.mark.system


def test_what_goes_in_comes_out(demo, tmp_path, unique):
    path, back = tmp_path / 'data', tmp_path / 'back'
    path.write_bytes(os.urandom(5_000_000))
    name = unique('image')
    made = demo('image create', name, '--file', path, '--disk-format', 'raw', '--container-format', 'bare',
                '--property', 'colour=brown')
    try:
        shown = demo('image show', made['id'])
        assert shown['status'] == 'active' and shown['size'] == 5_000_000
        assert shown['checksum'] == hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        demo.text('image save', made['id'], '--file', back)
        assert back.read_bytes() == path.read_bytes()
    finally:
        demo.text('image delete', made['id'])
    assert demo.run('image show', made['id']).returncode != 0


def test_an_image_with_a_backing_file_is_refused(demo, tmp_path, unique):
    import subprocess
    path = tmp_path / 'evil.qcow2'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/passwd', '-F', 'raw', str(path), '1M'], check=True)
    name = unique('evil')
    done = demo.run('image create', name, '--file', path, '--disk-format', 'qcow2', '--container-format', 'bare')
    assert done.returncode != 0
    for item in demo('image list', '--name', name):
        assert item['Status'] != 'active'
        demo.text('image delete', item['ID'])
