"""JSON Schemas of what the API takes and gives, and the endpoints under ``/v2/schemas`` that publish them."""
from kodiak.common import api
from kodiak.common.api import schema

from ..catalog import VISIBILITIES

UUID_PATTERN = '^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$'
MAX_INTEGER = 2 ** 31 - 1
STATUSES = ['queued', 'saving', 'active', 'killed', 'deleted', 'uploading', 'importing', 'pending_delete', 'deactivated']


def _text(description, length=None, null=False, **more):
    found = {'type': ['null', 'string'] if null else 'string', 'description': description}
    if length:
        found['maxLength'] = length
    return {**found, **more}


def _read_only(described):
    return {**described, 'readOnly': True}


LOCATION = {
    'type': 'object', 'required': ['url', 'metadata'],
    'properties': {
        'url': {'type': 'string', 'maxLength': 255},
        'metadata': {'type': 'object'},
        'validation_data': {
            'description': 'Values for the corresponding properties of the image. If the image is not queued they must be '
                           'what the image has.',
            'type': 'object', 'writeOnly': True, 'additionalProperties': False, 'required': ['os_hash_algo', 'os_hash_value'],
            'properties': {
                'checksum': {'type': 'string', 'minLength': 32, 'maxLength': 32},
                'os_hash_algo': {'type': 'string', 'maxLength': 64},
                'os_hash_value': {'type': 'string', 'maxLength': 128},
            },
        },
    },
}


VALIDATION = LOCATION['properties']['validation_data']


def image_properties(disk_formats, container_formats):
    """The attributes of an image that the API itself defines, as JSON Schema properties."""
    return {
        'id': _text('An identifier for the image', pattern=UUID_PATTERN),
        'name': _text('Descriptive name for the image', 255, null=True),
        'status': _read_only(_text('Status of the image', enum=STATUSES)),
        'visibility': _text('Scope of image accessibility', enum=sorted(VISIBILITIES)),
        'protected': {'type': 'boolean', 'description': 'If true, image will not be deletable.'},
        'os_hidden': {'type': 'boolean', 'description': 'If true, image will not appear in default image list response.'},
        'checksum': _read_only(_text('md5 hash of image contents.', 32, null=True)),
        'os_hash_algo': _read_only(_text('Algorithm to calculate the os_hash_value', 64, null=True)),
        'os_hash_value': _read_only(_text('Hexdigest of the image contents by the algorithm in os_hash_algo', 128, null=True)),
        'owner': _text('Owner of the image', 255, null=True),
        'size': _read_only({'type': ['null', 'integer'], 'description': 'Size of image file in bytes'}),
        'virtual_size': _read_only({'type': ['null', 'integer'], 'description': 'Virtual size of image in bytes'}),
        'container_format': {'type': ['null', 'string'], 'description': 'Format of the container',
                             'enum': [None, *container_formats]},
        'disk_format': {'type': ['null', 'string'], 'description': 'Format of the disk', 'enum': [None, *disk_formats]},
        'created_at': _read_only(_text('Date and time of image registration')),
        'updated_at': _read_only(_text('Date and time of the last image modification')),
        'tags': {'type': 'array', 'description': 'List of strings related to the image',
                 'items': {'type': 'string', 'maxLength': 255}},
        'direct_url': _read_only(_text('URL to access the image file kept in external store')),
        'min_ram': {'type': 'integer', 'description': 'Amount of ram (in MB) required to boot image.'},
        'min_disk': {'type': 'integer', 'description': 'Amount of disk space (in GB) required to boot image.'},
        'self': _read_only(_text('An image self url')),
        'file': _read_only(_text('An image file url')),
        'stores': _read_only(_text('Stores that hold the data of the image, separated by commas')),
        'schema': _read_only(_text('An image schema url')),
        'locations': {'type': 'array', 'items': LOCATION,
                      'description': 'A set of URLs to access the image file kept in external store'},
    }


def _custom(description, **more):
    return {'type': 'string', 'is_base': False, 'description': description, **more}


#: Properties that are custom to this API but mean something to others.
COMMON = {
    'architecture': _custom('Operating system architecture'),
    'instance_uuid': _custom('The instance that this image was made of. (For information only.)'),
    'kernel_id': {**_custom('Image to be used as the kernel of an AMI-style image.', pattern=UUID_PATTERN),
                  'type': ['null', 'string']},
    'os_distro': _custom('Common name of operating system distribution'),
    'os_version': _custom('Operating system version as specified by the distributor.'),
    'ramdisk_id': {**_custom('Image to be used as the ramdisk of an AMI-style image.', pattern=UUID_PATTERN),
                   'type': ['null', 'string']},
}


def image_document(conf):
    """The schema of an image, as ``/v2/schemas/image`` gives it."""
    return {
        'name': 'image',
        'properties': {**image_properties(conf.formats.disk, conf.formats.container), **COMMON},
        'additionalProperties': {'type': 'string'},
        'links': [{'rel': 'self', 'href': '{self}'}, {'rel': 'enclosure', 'href': '{file}'},
                  {'rel': 'describedby', 'href': '{schema}'}],
    }


def collection_document(name, item):
    """The schema of a list of ``item``, with its links."""
    return {
        'name': name,
        'properties': {name: {'type': 'array', 'items': item}, 'first': {'type': 'string'}, 'next': {'type': 'string'},
                       'schema': {'type': 'string'}},
        'links': [{'rel': 'first', 'href': '{first}'}, {'rel': 'next', 'href': '{next}'},
                  {'rel': 'describedby', 'href': '{schema}'}],
    }


MEMBER_DOCUMENT = {
    'name': 'member',
    'properties': {
        'member_id': _text('An identifier for the image member (tenantId)'),
        'image_id': _text('An identifier for the image', pattern=UUID_PATTERN),
        'created_at': _text('Date and time of image member creation'),
        'updated_at': _text('Date and time of last modification of image member'),
        'status': _text('The status of this image member', enum=['pending', 'accepted', 'rejected']),
        'schema': _read_only({'type': 'string'}),
    },
}


TASK_DOCUMENT = {
    'name': 'task',
    'properties': {
        'id': _text('An identifier for the task', pattern=UUID_PATTERN),
        'type': _text('The type of task represented by this content', enum=['import', 'api_image_import', 'location_import']),
        'status': _text('The current status of this task', enum=['pending', 'processing', 'success', 'failure']),
        'input': {'type': ['null', 'object'], 'description': 'The parameters required by task, JSON blob'},
        'result': {'type': ['null', 'object'], 'description': 'The result of current task, JSON blob'},
        'owner': _text('An identifier for the owner of this task'),
        'message': _text('Human-readable informative message only included when appropriate (usually on failure)'),
        'image_id': _text('Image associated with the task', null=True),
        'request_id': _text('Human-readable request-id', null=True),
        'user_id': _text('User associated with the task', null=True),
        'expires_at': _text('Datetime when this resource would be subject to removal', null=True),
        'created_at': _text('Datetime when this resource was created'),
        'updated_at': _text('Datetime when this resource was updated'),
        'self': _read_only({'type': 'string'}),
        'schema': _read_only({'type': 'string'}),
    },
}


def _open(properties):
    """Response properties without what only describes requests: enums and patterns may change with the configuration."""
    return {name: {key: value for key, value in declared.items() if key == 'type'} for name, declared in properties.items()}


#: The image in a response.
IMAGE = schema.obj(_open({**image_properties((), ()), **COMMON}), ['id', 'status', 'visibility', 'tags', 'self', 'file', 'schema'],
                   extra={'type': 'string'})
MEMBER = schema.obj(_open(MEMBER_DOCUMENT['properties']), ['member_id', 'image_id', 'status'])
#: The image in a request to create one; values that depend on the configuration are checked by the handler.
CREATE = schema.obj({
    'id': {'type': 'string', 'pattern': UUID_PATTERN},
    'name': {'type': ['string', 'null'], 'maxLength': 255},
    'visibility': {'type': 'string', 'enum': sorted(VISIBILITIES)},
    'protected': schema.BOOLEAN, 'os_hidden': schema.BOOLEAN,
    'owner': {'type': ['string', 'null'], 'maxLength': 255},
    'container_format': schema.TEXT, 'disk_format': schema.TEXT,
    'tags': {'type': 'array', 'items': {'type': 'string', 'maxLength': 255}},
    'min_ram': {'type': 'integer', 'minimum': 0, 'maximum': MAX_INTEGER},
    'min_disk': {'type': 'integer', 'minimum': 0, 'maximum': MAX_INTEGER},
    'locations': {'type': 'array', 'items': LOCATION},
    'kernel_id': {'type': ['string', 'null'], 'pattern': UUID_PATTERN},
    'ramdisk_id': {'type': ['string', 'null'], 'pattern': UUID_PATTERN},
}, extra=True)

routes = api.Routes('Schemas', prefix='/v2/schemas')
PUBLISHED = schema.obj({'name': schema.STRING, 'properties': {'type': 'object'}}, ['name', 'properties'], extra=True)


def _publish(path, document):
    @routes.get(path, rule='get_schemas', default='@', response=PUBLISHED, summary=f'Show the schema {path[1:]}')
    def show(req):
        return document(req.app.conf)


_publish('/image', image_document)
_publish('/images', lambda conf: collection_document('images', image_document(conf)))
_publish('/member', lambda conf: MEMBER_DOCUMENT)
_publish('/task', lambda conf: TASK_DOCUMENT)
_publish('/tasks', lambda conf: collection_document('tasks', TASK_DOCUMENT))
_publish('/members', lambda conf: collection_document('members', MEMBER_DOCUMENT))
