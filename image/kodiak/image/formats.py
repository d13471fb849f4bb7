"""What image data is, found out while it streams by, and whether an image may hold it.

The inspectors are those of oslo.utils; what they don't look at (the sizes of a qcow2's tables) is looked at here.
"""
import logging
import struct

from oslo_utils.imageutils import format_inspector

from kodiak.common import errors

LOG = logging.getLogger(__name__)
#: Declared formats whose data has no format of its own that an inspector knows.
PLAIN = ('raw', 'ami', 'ari', 'aki', 'ploop')
#: Inspected formats that are a disk's own content, not a container that an emulator interprets: raw data may be so.
CONTENT = ('raw', 'gpt', 'iso', 'luks')
#: Containers whose data is the disk itself. Inside of others (ova, docker, compressed) no disk format is looked for.
BARE = ('bare', 'ami', 'ari', 'aki', 'ovf', None)
#: QEMU's own limits of a qcow2.
QCOW2_L1_BYTES = 32 << 20
QCOW2_REFCOUNT_BYTES = 8 << 20
QCOW2_SNAPSHOTS = 65536
_QCOW2 = struct.Struct('>4sIQIIQIIQQIIQ')


class Inspector:
    """Is fed an image's data and judges it.

    :param declared: the image's ``disk_format``; :param container: its ``container_format``. :param enforce: refuse data that
        is not of the declared format; unsafe data is refused in any case. :param strict: False where a refusal is only to be
        noted: the data is staged, and an import may yet unpack it.
    """

    def __init__(self, declared, container='bare', enforce=True, strict=True):
        self.strict = strict
        self.declared = declared
        self.enforce = enforce
        self.size = 0
        self._live = []
        self._broken = {}
        self.looks = container in BARE
        if self.looks:
            self._live = [cls() for name, cls in format_inspector.ALL_FORMATS.items() if name != 'raw']

    def feed(self, data):
        """The next piece of the data."""
        self.size += len(data)
        for inspector in list(self._live):
            try:
                inspector.eat_chunk(data)
            except Exception as error:  # hostile data may break an inspector in any way; it is then not of that format
                self._drop(inspector, error)

    def _drop(self, inspector, error):
        self._live.remove(inspector)
        if _matches(inspector):
            self._broken[inspector.NAME] = error

    def finish(self):
        """The end of the data: ``(format, virtual size or None)``.

        :raises BadRequest: the data is unsafe, ambiguous, or not what the image declares.
        """
        if not self.looks:
            return self.declared, None
        for inspector in list(self._live):
            try:
                inspector.finish()
            except Exception as error:
                self._drop(inspector, error)
        if self._broken:
            name, error = next(iter(self._broken.items()))
            LOG.info('Broken %s data was refused: %s', name, error)
            raise errors.BadRequest(f'The data begins like a {name} image and is none that can be used.')
        found = {inspector.NAME: inspector for inspector in self._live if _matches(inspector)}
        containers = [name for name in found if name not in CONTENT]
        for name in containers:
            self._check_safety(name, found[name])
        if containers and len(found) > 1:
            raise errors.BadRequest(f"The data is of several formats at once ({', '.join(sorted(found))}), which is not accepted.")
        name = containers[0] if containers else 'iso' if 'iso' in found and self.declared == 'iso' else 'raw'
        if self.enforce and not (name in CONTENT if self.declared in PLAIN else name == self.declared):
            raise errors.BadRequest(f'The data is of the format {name}, but the image declares disk_format {self.declared}.')
        if name == 'raw':
            return name, self.size
        return name, _virtual_size(found[name])

    def _check_safety(self, name, inspector):
        try:
            inspector.safety_check()
            if name == 'qcow2':
                _check_qcow2(bytes(inspector.region('header').data), self.size)
        except errors.Error:
            raise
        except format_inspector.SafetyCheckFailed as error:
            reasons = '; '.join(sorted(str(failure) for failure in error.failures.values()))
            raise errors.BadRequest(f'The data is an unsafe {name} image: {reasons}.') from None
        except Exception as error:
            LOG.info('%s data could not be judged and was refused: %s', name, error)
            raise errors.BadRequest(f'The data is no complete {name} image.') from None


def _matches(inspector):
    try:
        return bool(inspector.format_match)
    except Exception:  # an inspector that met too little to say
        return False


def _virtual_size(inspector):
    try:
        size = int(inspector.virtual_size)
    except Exception:  # a table that leads nowhere
        return None
    return size if 0 < size < 2 ** 63 else None


def _check_qcow2(header, size):
    """Refuse tables that no image needs, or that lie outside of the data, before an emulator allocates memory for them."""
    (_, version, _, _, cluster_bits, virtual, encryption, l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots,
     _) = _QCOW2.unpack(header[:_QCOW2.size])
    cluster = 1 << min(cluster_bits, 63)
    problems = []
    if not 9 <= cluster_bits <= 21:
        problems.append('its cluster size is impossible')
    elif l1_entries * cluster * (cluster // 8) < virtual:
        problems.append('its L1 table is too small for its size')
    if l1_entries * 8 > QCOW2_L1_BYTES or l1_offset + l1_entries * 8 > size:
        problems.append('its L1 table is too large')
    if refcount_clusters * cluster > QCOW2_REFCOUNT_BYTES or refcount_offset + 8 > size:
        problems.append('its refcount table is too large')
    if snapshots > QCOW2_SNAPSHOTS:
        problems.append('it has too many snapshots')
    if encryption not in (0, 2):
        problems.append('it is encrypted in a way that is not supported')
    if version == 3 and int.from_bytes(header[96:100], 'big') > 6:
        problems.append('its refcounts are impossible')
    if problems:
        raise errors.BadRequest(f"The data is an unsafe qcow2 image: {'; '.join(problems)}.")
