"""An image's row as users see it."""
import sqlalchemy as sa

from ..models import images

#: What a view is made of, in the order that :func:`image` takes it apart.
COLUMNS = [images.c[name] for name in (
    'id', 'name', 'owner', 'status', 'visibility', 'disk_format', 'container_format', 'size', 'virtual_size', 'min_disk',
    'min_ram', 'protected', 'os_hidden', 'checksum', 'os_hash_algo', 'os_hash_value', 'properties', 'tags', 'locations',
    'created_at', 'updated_at')]


_SELECT = sa.select(*COLUMNS)


def select():
    """The SELECT of rows that :func:`image` takes."""
    return _SELECT


def time(value):
    """A timestamp as the API writes it."""
    return value.isoformat(timespec='seconds') + 'Z'


class View:
    """How images are shown to one caller.

    :param req: the request: whether locations are shown depends on the configuration and on the caller.
    """

    def __init__(self, req):
        self.req = req
        self.locations = req.app.conf.stores.show_locations
        self.rank = req.app.extra['stores'].rank
        self.protections = req.app.extra['protections']

    def row(self, row):
        """The view of a row of :func:`select`."""
        (image_id, name, owner, status, visibility, disk_format, container_format, size, virtual_size, min_disk, min_ram,
         protected, os_hidden, checksum, os_hash_algo, os_hash_value, properties, tags, locations, created_at,
         updated_at) = row
        path = '/v2/images/' + image_id
        shown = {
            **self.protections.readable(self.req.ctx, properties),
            'name': name, 'disk_format': disk_format, 'container_format': container_format,
            'visibility': visibility, 'size': size, 'virtual_size': virtual_size, 'status': status, 'checksum': checksum,
            'protected': protected, 'min_ram': min_ram, 'min_disk': min_disk, 'owner': owner, 'os_hidden': os_hidden,
            'os_hash_algo': os_hash_algo, 'os_hash_value': os_hash_value, 'id': image_id,
            'created_at': created_at.isoformat()[:19] + 'Z', 'updated_at': updated_at.isoformat()[:19] + 'Z', 'tags': tags,
            'self': path,
            'file': path + '/file', 'schema': '/v2/schemas/image'}
        if locations:
            stores = {location['store'] for location in locations}
            shown['stores'] = ','.join(sorted(stores, key=lambda store: (self.rank.get(store, 1000), store)))
        if self.locations:
            self._locate(shown, locations)
        return shown

    def image(self, values):
        """The view of an image as a dictionary of its columns."""
        return self.row([values[column.name] for column in COLUMNS])

    def _locate(self, shown, locations):
        target = {'project_id': shown['owner'], 'owner': shown['owner'], 'visibility': shown['visibility']}
        if not self.req.allows('get_image_location', target) or (
                shown['status'] == 'deactivated' and not self.req.ctx.is_admin):
            return
        shown['locations'] = [{'url': location['url'], 'metadata': location['metadata']} for location in locations]
        ordered = self.req.app.extra['stores'].ordered(locations)
        if ordered:
            shown['direct_url'] = ordered[0]['url']


def member(row):
    """A membership's row."""
    return {'member_id': row['member_id'], 'image_id': row['image_id'], 'status': row['status'],
            'created_at': time(row['created_at']), 'updated_at': time(row['updated_at']), 'schema': '/v2/schemas/member'}
