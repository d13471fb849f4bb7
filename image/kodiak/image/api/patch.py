"""The two JSON-patch dialects in which images are changed."""
import re

from kodiak.common import errors
from kodiak.common.api import schema as schemas

from .. import catalog, locations
from . import attributes

MEDIA_21 = 'application/openstack-images-v2.1-json-patch'
MEDIA_20 = 'application/openstack-images-v2.0-json-patch'
OPERATIONS = ('replace', 'add', 'remove')
BODY = {'type': 'array', 'items': {'type': 'object'}}


def parse(body, media):
    """``[(operation, path as a list, value)]`` of a request's body; ``BadRequest`` for what is no patch."""
    return [_operation(change, media) for change in body]


def _operation(change, media):
    if media == MEDIA_20:
        named = [name for name in OPERATIONS if name in change]
        if len(named) != 1:
            raise errors.BadRequest('Operation objects must contain exactly one member named "add", "remove", or "replace".')
        operation, pointer = named[0], change[named[0]]
    else:
        for name in ('op', 'path'):
            if name not in change:
                raise errors.BadRequest(f'Unable to find "{name}" in JSON Schema change')
        operation, pointer = change['op'], change['path']
        if operation not in OPERATIONS:
            raise errors.BadRequest(f"Invalid operation: '{str(operation)[:80]}'. It must be one of the following: "
                                    f"{', '.join(OPERATIONS)}.")
    if operation != 'remove' and 'value' not in change:
        raise errors.BadRequest(f'Operation "{operation}" requires a member named "value".')
    return operation, _path(pointer), change.get('value')


def _path(pointer):
    if not isinstance(pointer, str) or not pointer.startswith('/'):
        raise errors.BadRequest(f"Pointer '{str(pointer)[:80]}' does not start with \"/\".")
    if re.search('/\\s*?/', pointer[1:]) or (len(pointer) > 1 and pointer.endswith('/')) or pointer == '/':
        raise errors.BadRequest(f"Pointer '{pointer[:80]}' contains adjacent \"/\", or ends with one.")
    if re.search(r'~(?![01])', pointer):
        raise errors.BadRequest(f"Pointer '{pointer[:80]}' contains \"~\" not part of a recognized escape sequence.")
    path = [part.replace('~1', '/').replace('~0', '~').strip() for part in pointer[1:].split('/')]
    if len(path) > 2 or (len(path) == 2 and path[0] != 'locations'):
        raise errors.BadRequest(f"Invalid JSON pointer for this resource: '{pointer[:80]}'")
    if path[0] == 'locations' and len(path) == 2 and path[1] != '-' and schemas.natural(path[1]) is None:
        raise errors.BadRequest(f"Invalid JSON pointer for this resource: '{pointer[:80]}'")
    return path


class Changes:
    """Applies a patch to an image.

    :param req: the request. :param image: the image's columns; not changed. :param media: which dialect it is.
    :param sizes: of the data of locations that are added (:func:`kodiak.image.locations.measure`).
    """

    def __init__(self, req, image, media, sizes):
        self.sizes = sizes
        self.req = req
        self.image = image
        self.media = media
        self.columns = {}
        self.properties = dict(image['properties'])

    def apply(self, operations):
        """The columns to be written. Raises the fault of the first operation that cannot be done."""
        for operation, path, value in operations:
            name = path[0]
            attributes.check_name(name)
            if name == 'id':
                raise errors.Forbidden("Attribute 'id' is read-only.")
            if name == 'locations':
                self._locations(operation, path[1:], value)
            elif name == 'tags':
                self._tags(operation, value)
            elif name in attributes.BASE:
                self._base(operation, name, value)
            else:
                self._property(operation, name, value)
        if self.properties != self.image['properties']:
            if len(self.properties) > len(self.image['properties']):
                catalog.Limits.of(self.req.app.conf).check('properties', len(self.properties))
            self.columns['properties'] = self.properties
        if 'disk_format' in self.columns or 'container_format' in self.columns:
            attributes.check_formats(self.req.app.conf, {**self.image, **self.columns})
        return self.columns

    def _locations(self, operation, place, value):
        self.req.authorize(self.req.target, 'delete_image_location' if operation == 'remove' else 'set_image_location')
        now = {**self.image, **self.columns}
        if operation == 'replace' and not place:
            self.columns.update(locations.replace(self.req.app, now, value))
        elif operation == 'add' and place:
            self.columns.update(locations.add(self.req.app, now, value, place[0], self.sizes))
        elif operation == 'remove' and place:
            self.columns.update(locations.remove(self.req.app, now, place[0]))
        else:
            raise errors.BadRequest(f'Locations cannot be changed by {operation} at this path.')

    def _tags(self, operation, value):
        if operation == 'remove':
            raise errors.Forbidden('Property tags may not be removed.')
        attributes.check_value('tags', value)
        self.columns['tags'] = attributes.clean_tags(value)
        catalog.Limits.of(self.req.app.conf).check('tags', len(self.columns['tags']))

    def _base(self, operation, name, value):
        if operation == 'remove':
            raise errors.Forbidden(f'Property {name} may not be removed.')
        attributes.check_value(name, value)
        if name in ('disk_format', 'container_format') and self.image['status'] != 'queued' and value != self.image[name]:
            raise errors.Forbidden(f'Attribute {name} can be only replaced for a queued image.')
        if name == 'owner' and value != self.image['owner'] and not self.req.ctx.is_admin:
            raise errors.Forbidden("You are not permitted to modify 'owner' on this image.")
        if name == 'visibility' and value != self.image['visibility']:
            attributes.check_visibility(self.req, value, self.req.target)
        self.columns[name] = value

    def _property(self, operation, name, value):
        there = name in self.properties
        protections = self.req.app.extra['protections']
        if there:
            protections.check(self.req.ctx, 'delete' if operation == 'remove' else 'update', name)
        elif operation == 'add':
            protections.check(self.req.ctx, 'create', name)
        if operation == 'add' and there and self.media == MEDIA_20:
            raise errors.Conflict(f'Property {name} already present.')
        if operation != 'add' and not there:
            raise errors.Conflict(f'Property {name} does not exist.')
        if operation == 'remove':
            del self.properties[name]
            return
        attributes.check_property(name, value)
        self.properties[name] = value
