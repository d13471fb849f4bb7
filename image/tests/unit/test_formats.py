import random
import shutil
import subprocess

import pytest

from kodiak.common import errors, testing
from kodiak.image import formats

images = testing.module(__file__, 'images')


def judge(data, declared, piece=65536, **more):
    inspector = formats.Inspector(declared, **more)
    for start in range(0, len(data), piece):
        inspector.feed(data[start:start + piece])
    return inspector.finish()


GOOD = [
    (b'', 'raw', 'raw', 0), (b'x', 'raw', 'raw', 1),
    (b'plain text\n' * 100, 'raw', 'raw', 1100), (bytes(70000), 'ami', 'raw', 70000),
    (images.qcow2(), 'qcow2', 'qcow2', 1 << 30), (images.qcow2(version=2), 'qcow2', 'qcow2', 1 << 30),
    (images.vmdk(), 'vmdk', 'vmdk', 1 << 20), (images.vmdk('monolithicSparse'), 'vmdk', 'vmdk', 1 << 20),
    (images.vhd(), 'vhd', 'vhd', 1 << 20), (images.vdi(), 'vdi', 'vdi', 1 << 20),
    (images.fixed_vhd(), 'vhd', 'vhd', 1 << 20), (images.fixed_vhd(), 'raw', 'raw', (1 << 20) + 512),
    (images.vhdx(), 'vhdx', 'vhdx', 1 << 20), (images.iso(), 'iso', 'iso', 204800),
    (images.iso(), 'raw', 'raw', len(images.iso())), (images.mbr(), 'raw', 'raw', len(images.mbr())),
    (images.mbr(0), 'aki', 'raw', len(images.mbr(0))), (images.over(images.mbr()[:512], images.iso()), 'iso', 'iso', 204800),
]


@pytest.mark.parametrize('piece', [1, 512, 65536])
@pytest.mark.parametrize(('data', 'declared', 'name', 'size'), GOOD)
def test_good_images_pass_with_their_virtual_size(data, declared, name, size, piece):
    if piece == 1:
        data, piece = data[:3], 1
        size = len(data) if name == 'raw' else None
        if name != 'raw':
            return
    assert judge(data, declared, piece) == (name, size)


HOSTILE = {
    'backing file': (images.qcow2(backing=512), 'qcow2', 'backing'),
    'backing file, as raw': (images.qcow2(backing=512), 'raw', 'backing'),
    'data file': (images.qcow2(features=4), 'qcow2', 'data_file'),
    'unknown features': (images.qcow2(features=1 << 40), 'qcow2', 'features'),
    'qcow version 1': (images.qcow2(version=1), 'qcow2', 'version'),
    'huge L1 table': (images.qcow2(l1_entries=1 << 28), 'qcow2', 'L1'),
    'L1 table outside': (images.qcow2(l1_offset=1 << 40), 'qcow2', 'L1'),
    'size beyond the L1 table': (images.qcow2(size=1 << 62), 'qcow2', 'L1'),
    'cluster bits': (images.qcow2(cluster_bits=63), 'qcow2', 'cluster'),
    'refcount table': (images.qcow2(refcount_clusters=1 << 30), 'qcow2', 'refcount'),
    'snapshots': (images.qcow2(snapshots=1 << 30), 'qcow2', 'snapshots'),
    'encryption': (images.qcow2(encryption=1), 'qcow2', 'encrypted'),
    'qcow2 that says raw': (images.qcow2(), 'raw', 'qcow2'), 'raw that says qcow2': (bytes(70000), 'qcow2', 'raw'),
    'short qcow2': (images.qcow2()[:100], 'qcow2', 'raw'), 'empty qcow2': (b'', 'qcow2', 'raw'),
    'vmdk of a host file': (images.vmdk(extent='RW 2048 FLAT "/etc/passwd" 0'), 'vmdk', 'extent'),
    'vmdk monolithicFlat': (images.vmdk('monolithicFlat'), 'vmdk', 'subformat'),
    'vmdk twoGbMaxExtentFlat': (images.vmdk('twoGbMaxExtentFlat'), 'vmdk', 'subformat'),
    'vmdk descriptor only': (images.vmdk_text(), 'vmdk', 'subformat'),
    'vmdk descriptor only, as raw': (images.vmdk_text(), 'raw', 'subformat'),
    'vmdk with odd lines': (images.vmdk(extra='include /etc/passwd\n'), 'vmdk', 'descriptor'),
    'vmdk without extents': (images.vmdk(extent='#'), 'vmdk', 'extents'),
    'vmdk with a far descriptor': (images.vmdk(descriptor_sector=1 << 40), 'vmdk', 'vmdk'),
    'vmdk with a parent': (images.vmdk('monolithicSparse', extra='parentFileNameHint="../secret"\n'), 'vmdk', 'parent'),
    'vmdk with the id of a parent': (images.vmdk().replace(b'parentCID=ffffffff', b'parentCID=00000001'), 'vmdk', 'parent'),
    'vmdk of two types': (images.vmdk('monolithicSparse', extra='CREATETYPE="monolithicFlat"\n'), 'vmdk', 'several types'),
    'vmdk of another file': (images.vmdk(extent='RW 2048 FLAT "secret" 0'), 'vmdk', 'extents'),
    'vmdk of two extents': (images.vmdk(extra='RW 2048 SPARSE "other.vmdk"\n'), 'vmdk', 'extents'),
    'vmdk of another vmdk': (images.vmdk(extent='RW 2048 VMFSSPARSE "inner.vmdk"'), 'vmdk', 'extents'),
    'vmdk of a newer kind of extent': (images.vmdk(extent='RW 2048 SESPARSE "inner.vmdk"'), 'vmdk', 'extents'),
    'vmdk of a device': (images.vmdk(extent='RW 2048 VMFSRDM "/dev/sda"'), 'vmdk', 'extent'),
    'vmdk of nothing and of a file': (images.vmdk(extent='RW 2048 ZERO\nRW 2048 FLAT "secret" 0'), 'vmdk', 'extents'),
    'vmdk with a descriptor inside of its descriptor': (
        images.vmdk(extra=images.vmdk_text('RW 2048 SPARSE "inner.vmdk"', 'monolithicSparse').decode()), 'vmdk', 'types|extents'),
    'vmdk without capacity': (images.vmdk(sectors=0), 'vmdk', 'capacity'),
    'vhd with a parent': (images.vhd(kind=4), 'vhd', 'parent'), 'vhd of no kind': (images.vhd(kind=7), 'vhd', 'dynamic'),
    'vhd with its header elsewhere': (images.vhd(magic=b'x' * 8), 'vhd', 'dynamic'),
    'vhd with a huge table': (images.vhd(entries=1 << 29), 'vhd', 'too large'),
    'vhd with a small table': (images.vhd(1 << 40, entries=1), 'vhd', 'does not fit'),
    'vhd with a block of nothing': (images.vhd(block=1 << 31, entries=4), 'vhd', 'does not fit'),
    'fixed vhd of another size': (images.fixed_vhd() + bytes(512), 'vhd', 'raw'),
    'vhdx with a parent': (images.vhdx(parent=True), 'vhdx', 'parent'),
    'vhdx without a size': (images.vhdx().replace(images.VHDX['size'], bytes(16)), 'vhdx', 'how large'),
    'vhdx with too many items': (images.vhdx(items=60000), 'vhdx', 'vhdx'),
    'vhdx with too many regions': (images.vhdx(regions=60000), 'vhdx', 'vhdx'),
    'vhdx that says it has a parent': (images.vhdx(flags=2), 'vhdx', 'parent'),
    'vhdx without blocks': (images.vhdx().replace(images.VHDX['blocks'], bytes(16)), 'vhdx', 'missing'),
    'vhdx without parameters': (images.vhdx().replace(images.VHDX['parameters'], bytes(16)), 'vhdx', 'block size'),
    'vhdx with a huge table': (images.vhdx(table_bytes=0xfff00000), 'vhdx', 'too large'),
    'vhdx with its table outside': (images.vhdx(table=1 << 62), 'vhdx', 'too large'),
    'vhdx with a small table': (images.vhdx(size=1 << 40, table_bytes=4096), 'vhdx', 'does not fit'),
    'vhdx of an impossible block': (images.vhdx(block=3), 'vhdx', 'block size'),
    'vhdx of a huge block': (images.vhdx(block=1 << 31), 'vhdx', 'block size'),
    'vhdx of an impossible size': (images.vhdx(size=1 << 63), 'vhdx', 'size is impossible'),
    'vhdx of no size': (images.vhdx(size=0), 'vhdx', 'size is impossible'),
    'vhdx with its metadata outside': (images.vhdx(metadata=1 << 62), 'vhdx', 'vhdx'),
    'vhdx with its metadata before its tables': (images.vhdx(metadata=0x1000), 'vhdx', 'vhdx'),
    'vdi with a parent': (images.vdi(parent=b'x' * 16), 'vdi', 'parent'),
    'vdi of differences': (images.vdi(kind=4), 'vdi', 'parent'),
    'vdi with a huge table': (images.vdi(blocks=1 << 29), 'vdi', 'too large'),
    'vdi with its table outside': (images.vdi(table=0xfffffff0), 'vdi', 'too large'),
    'vdi of an impossible block': (images.vdi(block=0, blocks=1), 'vdi', 'does not fit'),
    'vdi of an impossible size': (images.vdi(1 << 62), 'vdi', 'too large|does not fit'),
    'vdi with a small table': (images.vdi(1 << 40, blocks=1), 'vdi', 'does not fit'),
    'qed': (images.qed(), 'raw', 'qed'), 'vhd as raw': (images.vhd(), 'raw', 'vhd'), 'vdi as qcow2': (images.vdi(), 'qcow2', 'vdi'),
    'qcow2 under an ISO': (images.over(images.qcow2()[:512], images.iso()), 'iso', 'qcow2'),
    'qcow2 under a GPT': (images.qcow2()[:446] + images.mbr()[446:512] + images.qcow2()[512:], 'qcow2', 'several'),
    'ISO says iso, is raw': (bytes(70000), 'iso', 'raw'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_images_are_refused(name):
    data, declared, word = HOSTILE[name]
    with pytest.raises(errors.BadRequest, match=word):
        judge(data, declared)


@pytest.mark.parametrize('name', ['backing file, as raw', 'vmdk of a host file', 'qed', 'huge L1 table'])
def test_unsafe_data_is_refused_even_where_formats_are_not_enforced(name):
    data, _, word = HOSTILE[name]
    with pytest.raises(errors.BadRequest, match=word):
        judge(data, 'raw', enforce=False)


def test_without_enforcement_a_format_may_differ():
    assert judge(images.qcow2(), 'raw', enforce=False)[0] == 'qcow2'
    assert judge(bytes(2000), 'qcow2', enforce=False) == ('raw', 2000)


def test_other_containers_are_not_looked_into():
    assert judge(images.qcow2(backing=1), 'qcow2', container='docker') == ('qcow2', None)


def test_no_data_breaks_the_inspector():
    # Mutations of every image: whatever comes out, it is a verdict.
    chance = random.Random(1)
    seeds = [data for data, *_ in GOOD if len(data) > 600] + [data for data, *_ in HOSTILE.values() if len(data) > 600]
    for seed in seeds:
        for _ in range(15):
            data = bytearray(seed[:70000])
            for _ in range(chance.randrange(1, 30)):
                data[chance.randrange(min(len(data), chance.choice((80, 600, 70000))))] = chance.randrange(256)
            data = bytes(data[:chance.choice((len(data), 700, 5000))])
            for declared in ('raw', 'qcow2', 'vmdk', 'vhdx'):
                try:
                    judge(data, declared, chance.choice((511, 4096, 100000)))
                except errors.BadRequest:
                    pass


@pytest.mark.skipif(not shutil.which('qemu-img'), reason='qemu-img is not installed')
@pytest.mark.parametrize(('name', 'options', 'declared'), [
    ('qcow2', [], 'qcow2'), ('qcow2', ['compat=0.10'], 'qcow2'), ('qcow2', ['cluster_size=2M'], 'qcow2'), ('raw', [], 'raw'),
    ('vmdk', ['subformat=monolithicSparse'], 'vmdk'), ('vmdk', ['subformat=streamOptimized'], 'vmdk'), ('vdi', [], 'vdi'),
    ('vpc', [], 'vhd'), ('vhdx', [], 'vhdx'),
])
def test_what_qemu_makes_passes(tmp_path, name, options, declared):
    path = tmp_path / 'x'
    chosen = ['-o', ','.join(options)] if options else []
    subprocess.run(['qemu-img', 'create', '-q', '-f', name, *chosen, path, '16M'], check=True)
    subprocess.run(['qemu-io', '-f', name, '-c', 'write -q 0 64k', path], check=name != 'vmdk', capture_output=True)
    kind, size = judge(path.read_bytes(), declared)
    assert kind == declared and abs(size - (16 << 20)) < 1 << 20
