"""Which attributes of an image a request may set, to what, and when. Creating and changing images both ask here."""
from kodiak.common import db, errors
from kodiak.common.api import schema as schemas

from .. import catalog, locations
from .schemas import CREATE

READ_ONLY = frozenset(('created_at', 'updated_at', 'status', 'checksum', 'size', 'virtual_size', 'os_hash_algo', 'os_hash_value',
                       'direct_url', 'self', 'file', 'schema', 'stores', 'member_id', 'project_id'))
RESERVED = frozenset(('location', 'deleted', 'deleted_at'))
#: What the API itself defines; everything else is a custom property.
BASE = frozenset((*catalog.SETTABLE, 'id', 'tags', 'locations')) | READ_ONLY
#: Custom properties that may be null.
NULLABLE = frozenset(('kernel_id', 'ramdisk_id'))
_value = {name: schemas.Validator({'type': 'object', 'properties': {name: declared}})
          for name, declared in CREATE['properties'].items()}


def check_name(name):
    """``Forbidden`` for an attribute that no request may set."""
    if name in READ_ONLY:
        raise errors.Forbidden(f"Attribute '{name}' is read-only.")
    if name in RESERVED or name.startswith('os_glance'):
        raise errors.Forbidden(f"Attribute '{name}' is reserved.")
    if not 0 < len(name) <= 255:
        raise errors.BadRequest('The name of a property must have 1 to 255 characters.')


def check_property(name, value):
    """``BadRequest`` for a value that a custom property cannot have."""
    if name in NULLABLE:
        check_value(name, value)
    elif not isinstance(value, str):
        raise errors.BadRequest(f"Invalid input for property '{name}': its value must be a string.")
    elif len(value) > 65535:
        raise errors.BadRequest(f"Invalid input for property '{name}': its value is longer than 65535 characters.")
    if '\x00' in name or (value and '\x00' in value):
        raise errors.BadRequest(f"Invalid input for property '{name[:80]!r}': NUL characters cannot be stored.")


def check_value(name, value):
    """``BadRequest`` for a value that an attribute of the API cannot have."""
    if name in _value:
        _value[name]({name: value})
    if isinstance(value, str) and '\x00' in value:
        raise errors.BadRequest(f'Invalid input for field/attribute {name}: NUL characters cannot be stored.')


def check_formats(conf, values):
    """``BadRequest`` for formats that this cloud does not take."""
    for name, known in (('disk_format', conf.formats.disk), ('container_format', conf.formats.container)):
        if values.get(name) is not None and values[name] not in known:
            raise errors.BadRequest(f"Invalid value '{values[name]}' for {name}: it must be one of {', '.join(known)}.")
    disk, container = values.get('disk_format'), values.get('container_format')
    amazon = ('ami', 'ari', 'aki')
    if disk and container and (disk in amazon or container in amazon) and disk != container and (
            disk in amazon and container in amazon):
        raise errors.BadRequest("Invalid mix of disk and container formats. When setting a disk or container format to one of "
                                "'aki', 'ari', or 'ami', the container and disk formats must match.")


def check_visibility(req, visibility, target):
    """``Forbidden`` where a policy keeps the caller from making an image public or a community image."""
    if visibility == 'public':
        req.authorize(target, 'publicize_image')
    elif visibility == 'community':
        req.authorize(target, 'communitize_image')


def clean_tags(tags):
    """The tags without repetitions, in their order; ``BadRequest`` for one that is none."""
    for tag in tags:
        if not isinstance(tag, str) or len(tag) > 255 or '\x00' in tag:
            raise errors.BadRequest(f'Invalid tag {str(tag)[:80]!r}: a tag is text of at most 255 characters.')
    return list(dict.fromkeys(tags))


def new_image(req, body):
    """The columns of a new image as a request describes it; asks the policy.

    :param body: what :data:`kodiak.image.api.schemas.CREATE` lets pass, or may be checked here.
    """
    conf = req.app.conf
    values = {**catalog.NEW, 'id': db.new_id(), 'owner': req.ctx.project_id}
    properties, given = {}, []
    for name, value in body.items():
        check_name(name)
        if name == 'locations':
            given = value
        elif name in BASE:
            check_value(name, value)
            values[name] = value
        else:
            check_property(name, value)
            req.app.extra['protections'].check(req.ctx, 'create', name)
            properties[name] = value
    target = {'project_id': req.ctx.project_id, 'owner': values['owner'], 'visibility': values['visibility'], 'member_id': None}
    req.authorize(target, 'add_image')
    check_formats(conf, values)
    check_visibility(req, values['visibility'], target)
    limits = catalog.Limits.of(conf)
    limits.check('properties', len(properties))
    values['tags'] = clean_tags(body.get('tags', ()))
    limits.check('tags', len(values['tags']))
    now = db.utcnow()
    values = {**values, 'id': values['id'].lower(), 'properties': properties, 'locations': [], 'created_at': now, 'updated_at': now}
    if given:
        req.authorize(target, 'set_image_location')
        sizes = locations.measure(req.app, given)
        for location in given:
            values.update(locations.add(req.app, values, location, '-', sizes))
    return values
