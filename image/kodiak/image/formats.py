"""What image data is, found out while it streams by, and whether an image may hold it.

The inspectors are those of oslo.utils; what they don't look at is looked at in
:mod:`kodiak.image.safety`.
"""
import logging

from oslo_utils.imageutils import format_inspector

from kodiak.common import errors

from . import safety

LOG = logging.getLogger(__name__)
INSPECTORS = {**format_inspector.ALL_FORMATS, 'vhdx': safety.Vhdx}
#: Declared formats whose data has no format of its own that an inspector knows.
PLAIN = ('raw', 'ami', 'ari', 'aki', 'ploop')
#: Inspected formats that are a disk's own content, not a container that an emulator interprets: raw data may be so.
CONTENT = ('raw', 'gpt', 'iso', 'luks')
#: Containers whose data is the disk itself. Inside of others (ova, docker, compressed) no disk format is looked for.
BARE = ('bare', 'ami', 'ari', 'aki', 'ovf', None)


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
        self._begins = self._ends = b''
        self._live = []
        self._broken = {}
        self.looks = container in BARE
        if self.looks:
            self._live = [cls() for name, cls in INSPECTORS.items() if name != 'raw']

    def feed(self, data):
        """The next piece of the data."""
        self.size += len(data)
        if len(self._begins) < safety.BEGINS:
            self._begins = (self._begins + data[:safety.BEGINS])[:safety.BEGINS]
        self._ends = data[-512:] if len(data) >= 512 else (self._ends + data)[-512:]
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
        if name == 'raw' and self.declared == 'vhd':
            virtual = safety.fixed_vhd(self._ends, self.size)
            if virtual is not None:
                return 'vhd', virtual
        if self.enforce and not (name in CONTENT if self.declared in PLAIN else name == self.declared):
            raise errors.BadRequest(f'The data is of the format {name}, but the image declares disk_format {self.declared}.')
        if name == 'raw':
            return name, self.size
        return name, _virtual_size(found[name])

    def _check_safety(self, name, inspector):
        try:
            inspector.safety_check()
            safety.check(name, inspector, self._begins, self.size)
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

