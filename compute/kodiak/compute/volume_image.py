"""Images of servers that boot from volumes: they hold no data, and name snapshots of all volumes of the server."""
import logging
import time

import orjson

from kodiak.common import errors
from kodiak.compute import volumes

LOG = logging.getLogger(__name__)
PATIENCE = 15


def make(clients, context, row, hardware, name, metadata):
    """Take the snapshots in the name of the caller, and make the image; its id. What was made goes again where that fails."""
    block, made, image_id = volumes.Block(clients, context), [], None
    try:
        mapping = []
        for entry in row['volumes']:
            snapshot = block.post('/snapshots', {'snapshot': {
                'volume_id': entry['id'], 'force': True, 'name': f'snapshot for {name}'[:255], 'description': ''}})['snapshot']
            made.append(snapshot['id'])
            mapping.append(_device(entry, snapshot))
        properties = {key: str(value) for key, value in hardware.items() if key != 'image_id' and not key.startswith('os_glance')}
        properties.update({'image_type': 'snapshot', 'instance_uuid': row['uuid'], 'base_image_ref': '', 'user_id': context.user_id,
                           'root_device_name': row['root_device'], 'bdm_v2': 'True',
                           'block_device_mapping': orjson.dumps(mapping).decode(), **metadata})
        image_id = clients.image.post('/v2/images', {
            **properties, 'name': name, 'visibility': 'private', 'container_format': 'bare', 'disk_format': 'raw', 'min_ram': 0,
            'min_disk': 0}, context=context)['id']
        # An image is active once it has its data, of which there is none.
        clients.image.request('PUT', f'/v2/images/{image_id}/file', context, data=b'',
                              headers={'Content-Type': 'application/octet-stream'})
        return image_id
    except errors.Error:
        _take_back(clients, block, context, image_id, made)
        raise


def _device(entry, snapshot):
    return {'source_type': 'snapshot', 'destination_type': 'volume', 'snapshot_id': snapshot['id'], 'volume_size': snapshot['size'],
            'boot_index': entry.get('boot_index'), 'device_name': entry['device'], 'disk_bus': entry.get('bus'),
            'device_type': entry.get('device_type') or 'disk', 'tag': entry.get('tag'), 'guest_format': None, 'no_device': None,
            'delete_on_termination': bool(entry['delete_on_termination']), 'volume_id': None, 'image_id': None}


def _take_back(clients, block, context, image_id, made):
    try:
        if image_id is not None:
            clients.image.delete(f'/v2/images/{image_id}', context=context)
        until = time.monotonic() + PATIENCE
        for snapshot_id in made:
            # One that is still being made cannot be deleted yet.
            while block.get(f'/snapshots/{snapshot_id}')['snapshot']['status'] == 'creating' and time.monotonic() < until:
                time.sleep(0.2)
            block.delete(f'/snapshots/{snapshot_id}')
    except errors.Error as error:
        LOG.warning('What an image was to be made of is left: image %s, snapshots %s: %s', image_id, made, error)
