"""The agent's two dealings with the image service."""
import requests

from kodiak.common import errors
from kodiak.compute.drivers import base

CHUNK = 1 << 20


class Images:
    """Downloads and uploads image data with the service's own credentials.

    :param client: the image client of :class:`kodiak.common.client.Clients`.
    """

    def __init__(self, client):
        self.client = client

    def download(self, image_id):
        """The data of an image, piece by piece.

        :raises base.Fault: ``image-unavailable``; final where the image is gone.
        """
        try:
            response = self.client.request('GET', f'/v2/images/{image_id}/file', stream=True,
                                           headers={'Accept': 'application/octet-stream'}, timeout=120)
        except (errors.NotFound, errors.Gone, errors.Forbidden):
            raise base.Fault('image-unavailable', f'The image {image_id} cannot be had any more.', final=True)
        except errors.Error as error:
            raise base.Fault('image-unavailable', f'The image {image_id} could not be fetched: {error.message}')
        if response.status_code == 204:
            raise base.Fault('image-unavailable', f'The image {image_id} has no data.', final=True)
        with response:
            try:
                yield from iter(lambda: response.raw.read(CHUNK), b'')
            except (requests.RequestException, OSError) as error:
                raise base.Fault('image-unavailable', f'The data of image {image_id} broke off: {type(error).__name__}.')

    def upload(self, image_id, file, size, disk_format):
        """Send the data of a queued image, and say its formats where it has none yet.

        :raises base.Fault: ``image-upload``; final where the image is gone or full, or the quota is.
        """
        try:
            image = self.client.get(f'/v2/images/{image_id}')
            if image['status'] == 'active':
                return
            changes = [{'op': 'add', 'path': '/' + name, 'value': value}
                       for name, value in (('disk_format', disk_format), ('container_format', 'bare'))
                       if image.get(name) != value]
            if changes:
                self.client.request('PATCH', f'/v2/images/{image_id}', json=changes, headers={
                    'Content-Type': 'application/openstack-images-v2.1-json-patch'})
            self.client.request('PUT', f'/v2/images/{image_id}/file', data=file, timeout=3600,
                                headers={'Content-Type': 'application/octet-stream'})
        except (errors.NotFound, errors.Gone, errors.Forbidden, errors.RequestTooLarge) as error:
            raise base.Fault('image-upload', f'The image {image_id} takes no data: {error.message}', final=True)
        except errors.Error as error:
            raise base.Fault('image-upload', f'The image {image_id} could not be written: {error.message}')
