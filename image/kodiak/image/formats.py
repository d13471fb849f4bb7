"""What image data is, found out while it streams by, and whether an image may hold it."""
from oslo_utils.imageutils import format_inspector

from kodiak.common import errors

#: Declared formats whose data has no format of its own that an inspector knows.
PLAIN = ('raw', 'ami', 'ari', 'aki', 'ploop')
#: Inspected formats that are a disk's own content, not a container around it: raw data may be so.
CONTENT = ('raw', 'gpt', 'iso', 'luks')
#: What some inspectors call differently from the API.
NAMES = {'vpc': 'vhd'}


class Inspector:
    """Is fed an image's data and judges it.

    :param declared: the image's ``disk_format``; :param container: its ``container_format`` (data inside another container
        than ``bare`` is not a disk, so no disk format is looked for). :param enforce: refuse data that is not of the
        declared format; unsafe data is refused in any case.
    """

    def __init__(self, declared, container='bare', enforce=True):
        self.declared = declared
        self.enforce = enforce
        self.looks = container in ('bare', 'ami', 'ari', 'aki', 'ovf', None)
        self._wrapper = format_inspector.InspectWrapper(None) if self.looks else None
        self._decided = False

    def feed(self, data):
        """The next piece of the data. Raises ``BadRequest`` as soon as the data is known to be of another format."""
        if not self.looks or self._decided:
            return
        self._wrapper._process_chunk(data)

    def finish(self):
        """The end of the data: ``(format, virtual size or None)``.

        :raises BadRequest: the data is unsafe, ambiguous, or not what the image declares.
        """
        if not self.looks:
            return self.declared, None
        self._wrapper._finish()
        found = self._wrapper.formats
        names = sorted(NAMES.get(str(one), str(one)) for one in found)
        for one in found:
            self._check_safety(one)
        if len(names) > 1 and not (self.declared == 'iso' and set(names) <= {'iso', 'gpt'}):
            raise errors.BadRequest(f"The data is of several formats at once ({', '.join(names)}), which is not accepted.")
        name = names[0] if len(names) == 1 else 'iso'
        if self.enforce and not self._fits(name):
            raise errors.BadRequest(f'The data is of the format {name}, but the image declares disk_format {self.declared}.')
        size = None
        if name == self.declared:
            inspector = next(one for one in found if NAMES.get(str(one), str(one)) == name)
            size = self._virtual_size(inspector)
        return name, size

    def _fits(self, name):
        if self.declared in PLAIN:
            return name in CONTENT
        return name == self.declared

    @staticmethod
    def _check_safety(inspector):
        try:
            inspector.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            reasons = '; '.join(sorted(str(failure) for failure in error.failures.values()))
            raise errors.BadRequest(f'The data is an unsafe {inspector} image: {reasons}.') from None
        except format_inspector.ImageFormatError as error:
            raise errors.BadRequest(f'The data is no complete {inspector} image: {error}') from None

    @staticmethod
    def _virtual_size(inspector):
        try:
            return int(inspector.virtual_size) or None
        except (format_inspector.ImageFormatError, ValueError, TypeError, ArithmeticError):
            return None
