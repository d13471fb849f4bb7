"""JSON Schemas of metadata definitions, as requests hold them and as ``/v2/schemas/metadefs`` publishes them."""
from kodiak.common import api
from kodiak.common.api import schema

from .schemas import PUBLISHED, collection_document

KINDS = ['array', 'boolean', 'integer', 'number', 'object', 'string', None]
STRINGS = {'type': 'array', 'items': {'type': 'string'}, 'uniqueItems': True}
_COUNT = {'type': 'integer', 'minimum': 0}
_READ_ONLY = {'readOnly': True, 'type': 'string'}
_TIME = {'readOnly': True, 'type': 'string', 'format': 'date-time'}
TEXT = {'type': ['string', 'null']}

#: What is said of one property.
DESCRIBED = {
    'title': {'type': 'string'}, 'description': {'type': 'string'},
    'type': {'enum': KINDS},
    'operators': {'type': 'array', 'items': {'type': 'string'}}, 'required': STRINGS,
    'minimum': {'type': 'number'}, 'maximum': {'type': 'number'}, 'maxLength': _COUNT, 'minLength': _COUNT,
    'pattern': {'type': 'string'}, 'enum': {'type': 'array'}, 'readonly': {'type': 'boolean'}, 'default': {},
    'items': {'type': 'object', 'properties': {'type': {'enum': KINDS}, 'enum': {'type': 'array'}}},
    'maxItems': _COUNT, 'minItems': _COUNT, 'uniqueItems': {'type': 'boolean'}, 'additionalItems': {'type': 'boolean'},
}
PROPERTIES = {'type': 'object', 'propertyNames': {'maxLength': 255, 'minLength': 1},
              'additionalProperties': schema.obj(DESCRIBED, ['title', 'type'])}
_NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255}
_TIMES = {'created_at': _TIME, 'updated_at': _TIME}
_LINKS = {'self': _READ_ONLY, 'schema': _READ_ONLY}

OBJECT = schema.obj({'name': _NAME, 'description': TEXT, 'required': STRINGS, 'properties': PROPERTIES, **_TIMES, **_LINKS},
                    ['name'])
PROPERTY = schema.obj({'name': _NAME, **DESCRIBED}, ['name', 'title', 'type'])
TAG = schema.obj({'name': _NAME, **_TIMES}, ['name'])
TYPE = schema.obj({
    'name': {'type': 'string', 'minLength': 1, 'maxLength': 80}, 'prefix': {'type': ['string', 'null'], 'maxLength': 80},
    'properties_target': {'type': ['string', 'null'], 'maxLength': 80}, **_TIMES}, ['name'])
NAMESPACE = schema.obj({
    'namespace': {'type': 'string', 'minLength': 1, 'maxLength': 80}, 'display_name': {'type': ['string', 'null'], 'maxLength': 80},
    'description': {'type': ['string', 'null'], 'maxLength': 500}, 'visibility': {'type': 'string', 'enum': ['public', 'private']},
    'protected': {'type': 'boolean'}, 'owner': {'type': ['string', 'null'], 'maxLength': 255},
    'properties': PROPERTIES, 'objects': {'type': 'array', 'items': OBJECT}, 'tags': {'type': 'array', 'items': TAG},
    'resource_type_associations': {'type': 'array', 'items': TYPE}, **_TIMES, **_LINKS}, ['namespace'])

routes = api.Routes('Schemas of metadata definitions', prefix='/v2/schemas/metadefs')
_POSITIVE = {'positiveInteger': _COUNT, 'stringArray': STRINGS,
             'positiveIntegerDefault0': {'allOf': [{'$ref': '#/definitions/positiveInteger'}, {'default': 0}]}}


def _publish(path, name, document):
    shown = {'name': name, 'definitions': _POSITIVE, **document}

    @routes.get(path, rule='get_schemas', default='@', response=PUBLISHED, summary=f'Show the schema metadefs{path}')
    def show(req):
        return shown


for _name, _plural, _document in (
        ('namespace', 'namespaces', NAMESPACE), ('object', 'objects', OBJECT), ('tag', 'tags', TAG),
        ('resource_type', 'resource_types', TYPE), ('property', 'properties', PROPERTY)):
    _shown = 'resource_type_association' if _name == 'resource_type' else _name
    _publish('/' + _name, _shown, _document)
    _listed = 'resource_type_associations' if _name == 'resource_type' else _plural
    _collection = collection_document(_listed, {'name': _shown, **_document})
    if _name == 'property':
        _collection['properties']['properties'] = {'type': 'object', 'additionalProperties': {'name': 'property', **_document}}
    _publish('/' + _plural, _listed, _collection)
