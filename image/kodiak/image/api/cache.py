"""The image cache, for administrators."""
import datetime

from kodiak.common import api, errors
from kodiak.common.api import schema as schemas

from . import rules
from .images import load

routes = api.Routes('Image cache', prefix='/v2/cache')
TARGETS = {'': None, 'cache': 'cached', 'queue': 'queued'}


def _cache(req):
    cache = req.app.extra['cache']
    if not cache:
        raise errors.NotFound('Caching via API is not supported at this site.')
    return cache


@routes.get('', rule='cache_list', default=rules.ADMIN, summary='Show what the cache holds',
            response=schemas.obj({'cached_images': schemas.array({'type': 'object'}),
                                  'queued_images': schemas.array(schemas.STRING)}))
def list_cache(req):
    rows = _cache(req).rows()
    return {'cached_images': [{'image_id': row['image_id'], 'hits': row['hits'], 'size': row['size'],
                               'last_accessed': _seconds(row['last_accessed']), 'last_modified': _seconds(row['last_modified'])}
                              for row in rows if row['state'] == 'cached'],
            'queued_images': [row['image_id'] for row in rows if row['state'] == 'queued']}


def _seconds(moment):
    return moment.replace(tzinfo=datetime.UTC).timestamp()


@routes.delete('', rule='cache_delete', default=rules.ADMIN, summary='Empty the cache')
def clear_cache(req):
    target = req.http.headers.get('x-image-cache-clear-target', '').lower()
    if target not in TARGETS:
        raise errors.BadRequest("If 'x-image-cache-clear-target' header is provided, it must be either 'cache' or 'queue'.")
    _cache(req).drop(state=TARGETS[target])


@routes.put('/{image_id}', rule='cache_image', default=rules.ADMIN, load=load, status=202, summary='Have an image cached')
def queue_image(req, image_id):
    cache = _cache(req)
    if req.target['status'] != 'active':
        raise errors.BadRequest('Only images with status active can be targeted for queueing')
    cache.queue(req.target)


@routes.delete('/{image_id}', rule='cache_delete', default=rules.ADMIN, summary='Take an image out of the cache')
def delete_entry(req, image_id):
    if not _cache(req).drop({image_id})[0]:
        raise errors.NotFound(f'Image {image_id} is neither cached nor queued.')


@routes.get('/nodes/{image_id}', rule='list_cached_nodes', default=rules.ADMIN, load=load,
            summary='List the hosts that cached an image',
            response=schemas.array(schemas.STRING))
def list_nodes(req, image_id):
    return _cache(req).nodes(image_id)


@routes.post('/clean', rule='cache_clean', default=rules.ADMIN, summary='Take away what is of no use in the cache')
def clean_cache(req):
    _cache(req).clean()


@routes.post('/prune', rule='cache_prune', default=rules.ADMIN, summary='Shrink the cache to its size',
             response=schemas.obj({'total_files_pruned': schemas.INTEGER, 'total_bytes_pruned': schemas.INTEGER}))
def prune_cache(req):
    count, size = _cache(req).prune()
    return {'total_files_pruned': count, 'total_bytes_pruned': size}
