"""Microversions and version documents, as the API-SIG guidelines have them."""
import dataclasses
import re

from .. import errors

FORM = re.compile(r'^(0|[1-9]\d*)\.(0|[1-9]\d*)$')


def parse_microversion(text):
    """``(major, minor)`` of ``2.53``; ``BadRequest`` for anything else."""
    match = FORM.match(text)
    if not match:
        raise errors.BadRequest(f"API Version String '{text}' is of invalid format. Must be of format MajorNum.MinorNum. "
                                f'(invalid version string: {text})')
    return int(match[1]), int(match[2])


def text_of(version):
    """``2.53`` of ``(2, 53)``."""
    return f'{version[0]}.{version[1]}'


@dataclasses.dataclass(frozen=True)
class Microversions:
    """The range of microversions that an API serves.

    :param service: the service type in the ``OpenStack-API-Version`` header (``compute``).
    :param legacy: the older header's name, where there is one (``X-OpenStack-Nova-API-Version``).
    """

    service: str
    minimum: tuple
    maximum: tuple
    legacy: str | None = None

    def of(self, headers):
        """The version that a request asks for: the minimum where it names none.

        :raises BadRequest: malformed; :raises NotAcceptable: outside the range.
        """
        asked = None
        header = headers.get('OpenStack-API-Version')
        if header:
            for part in header.split(','):
                words = part.split()
                if len(words) == 2 and words[0].lower() == self.service:
                    asked = words[1]
                elif len(words) != 2:
                    raise errors.BadRequest(f"Invalid OpenStack-API-Version header '{header}': it must be of the form "
                                            f"'{self.service} X.Y'.")
        if asked is None and self.legacy:
            asked = headers.get(self.legacy)
        if asked is None:
            return self.minimum
        if asked == 'latest':
            return self.maximum
        version = parse_microversion(asked)
        if not self.minimum <= version <= self.maximum:
            raise errors.NotAcceptable(
                f'Version {asked} is not supported by the API. Minimum is {text_of(self.minimum)} and maximum is '
                f'{text_of(self.maximum)}.', kind='computeFault',
                detail={'min_version': text_of(self.minimum), 'max_version': text_of(self.maximum)})
        return version

    def headers(self, version):
        """The response headers that say which version was served."""
        text = text_of(version)
        found = [('OpenStack-API-Version', f'{self.service} {text}'), ('Vary', 'OpenStack-API-Version')]
        if self.legacy:
            found += [(self.legacy, text), ('Vary', self.legacy)]
        return found


@dataclasses.dataclass(frozen=True)
class VersionDocument:
    """One major version as the version documents list it.

    :param id: ``v2.1``; :param path: below the API's root, with a slash at its end; :param status: ``CURRENT``,
        ``SUPPORTED`` or ``DEPRECATED``.
    """

    id: str
    path: str
    status: str = 'CURRENT'
    updated: str = '2026-11-01T00:00:00Z'
    version: str | None = None
    min_version: str | None = None
    media_types: tuple = ()
    micro_names: bool = True

    def document(self, base_url):
        """The dictionary of this version; ``base_url`` is the API's root as the client reaches it."""
        found = {'id': self.id, 'status': self.status, 'updated': self.updated,
                 'links': [{'rel': 'self', 'href': base_url.rstrip('/') + self.path}]}
        if self.micro_names:
            found['version'] = self.version or ''
            found['min_version'] = self.min_version or ''
        if self.media_types:
            found['media-types'] = [{'base': base, 'type': kind} for base, kind in self.media_types]
        return found
