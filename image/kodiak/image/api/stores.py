"""Copies of an image in stores."""
from kodiak.common import api, errors

from .. import blobs, catalog, notices
from ..models import blobs as table
from . import rules
from .images import load

routes = api.Routes('Stores', prefix='/v2/stores')


def load_copy(req, store_id, image_id):
    """The image of a path; ``NotFound`` where it has no data in that store."""
    image = load(req, image_id)
    if store_id not in req.app.extra['stores'].by_id or all(location['store'] != store_id for location in image['locations']):
        raise errors.NotFound(f"Image {image_id} has no data in a store '{store_id}'.")
    return image


@routes.delete('/{store_id}/{image_id}', rule='delete_image_location', default=rules.ADMIN, load=load_copy,
               summary='Delete the copy of an image in a store')
def delete_from_store(req, store_id, image_id):
    def remove(connection):
        locations = catalog.locked(connection, image_id)['locations']
        left = [location for location in locations if location['store'] != store_id]
        if len(left) == len(locations):
            raise errors.NotFound(f"Image {image_id} has no data in a store '{store_id}'.")
        if not left:
            raise errors.Forbidden('The last location of an image cannot be deleted.')
        catalog.update(connection, image_id, {'locations': left})
        notices.image(connection, image_id, 'update')
        gone = [location['blob'] for location in locations if location['store'] == store_id]
        blobs.doom(connection, table.c.id.in_(gone), req.app.conf.stores.delete_delay)
    req.db.transact(remove)
