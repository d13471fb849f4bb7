"""Images of another cloud's image service (another region of the same identity), for the import method ``glance-download``.

The service reads there with its own credentials, so it looks itself whether the user who asked may see the image.
"""
from keystoneauth1 import exceptions

from kodiak.common import errors

#: Properties that describe what the data needs to run, and come along with it.
PREFIXES = ('hw_', 'trait:', 'os_distro', 'os_secure_boot', 'os_type', 'os_version')


class Download:
    """An image of another service that is being read.

    :param work: the saga's work: ``request`` in its data names the image, the region and the interface.
    :raises NotFound: there is no such image for this user. :raises BadRequest: no such region.
    """

    def __init__(self, work):
        request = work.data['request']
        self._session = work.app.clients.session()
        interface, region = request.get('glance_service_interface', 'public'), request['glance_region']
        try:
            base = self._session.get_endpoint(service_type='image', interface=interface, region_name=region, skip_discovery=True)
        except exceptions.ClientException as error:
            raise errors.Unavailable(f'The catalog cannot be read: {error}') from None
        if not base:
            raise errors.BadRequest(f"The catalog has no {interface} endpoint of an image service in the region '{region}'.")
        self._base = base.rstrip('/').removesuffix('/v2') + '/v2/images/' + request['glance_image_id']
        image = self._get('').json()
        self._check(image, work.data['owner'], request['glance_image_id'])
        self.image = image
        self.columns = {'disk_format': image['disk_format'], 'container_format': image['container_format']}
        self.properties = {name: value for name, value in image.items() if name.startswith(PREFIXES) and isinstance(value, str)}
        self.size = image['size']
        self._answer = self._get('/file', stream=True)

    def _get(self, path, stream=False):
        try:
            answer = self._session.get(self._base + path, stream=stream, raise_exc=False, timeout=60, log=False,
                                       headers={'Accept': 'application/octet-stream' if stream else 'application/json'})
        except exceptions.ClientException as error:
            raise errors.Unavailable(f'The image service of that region cannot be reached: {error}') from None
        if answer.status_code != 200:
            raise errors.from_status(answer.status_code if answer.status_code >= 400 else 409,
                                     f'The image service of that region answered {answer.status_code} for that image.')
        return answer

    def _check(self, image, project_id, image_id):
        seen = image['visibility'] in ('public', 'community') or image['owner'] == project_id
        if not seen and image['visibility'] == 'shared':
            members = self._get('/members').json()['members']
            seen = any(member['member_id'] == project_id for member in members)
        if not seen:
            raise errors.NotFound(f'Failed to find image {image_id} in that region')
        if image['status'] != 'active':
            raise errors.Conflict(f"The image {image_id} of that region is {image['status']}, not active.")

    def read(self, size):
        """The next piece; b'' at the end."""
        return self._answer.raw.read(size)

    def verify(self, facts):
        """``Conflict`` where what came is not what that service says the image is."""
        if self.image.get('os_hash_algo') == 'sha512' and self.image.get('os_hash_value') != facts['os_hash_value']:
            raise errors.Conflict('The data is not what the image service of that region says it is.')

    def close(self):
        """Let go of the connection."""
        self._answer.close()
