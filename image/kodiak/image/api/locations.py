"""The location API: other services, and owners, say where an image's data lies."""
from kodiak.common import api, errors
from kodiak.common.api import schema as schemas

from .. import locations
from . import rules
from .data import check_formats_set
from .images import load

routes = api.Routes('Locations', prefix='/v2/images/{image_id}/locations')
VALIDATION = schemas.obj({'os_hash_algo': schemas.STRING, 'os_hash_value': schemas.STRING, 'checksum': schemas.STRING})


@routes.post('', rule='add_image_location', default=rules.LOCATE, load=load, status=202,
             body=schemas.obj({'url': {'type': 'string', 'minLength': 1, 'maxLength': 2048}, 'validation_data': VALIDATION},
                              ['url'], extra=True),
             summary='Add the location of the data of an image')
def add_location(req, image_id):
    image, url, validation = req.target, req.body['url'], req.body.get('validation_data') or {}
    if image['status'] != 'queued':
        raise errors.Conflict(f"It's not allowed to add locations if image status is {image['status']}.")
    check_formats_set(image)
    locations.check_validation(validation)
    store = req.app.extra['stores'].taking(url)
    entry = {'url': url, 'metadata': {'store': store.id}, 'store': store.id, 'blob': None}
    size = locations.size_of(req.app, entry)
    req.db.transact(locations.start, req.ctx, image, entry, size, validation)


@routes.get('', rule='fetch_image_location', default=rules.SERVICE, load=load, response=schemas.array({'type': 'object'}),
            summary='List the locations of the data of an image')
def list_locations(req, image_id):
    return [{'url': location['url'], 'metadata': location['metadata']} for location in req.target['locations']]
