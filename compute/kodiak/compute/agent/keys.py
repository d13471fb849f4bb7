"""The agent's one dealing with block storage: the keys of encrypted volumes, which nobody keeps here."""
import base64

from kodiak.common import errors
from kodiak.compute.drivers import base


class Keys:
    """Asks for keys with the service's own credentials.

    :param clients: :class:`kodiak.common.client.Clients`.
    """

    def __init__(self, clients):
        self.clients = clients

    def passphrase(self, volume_id):
        """What an encrypted volume is opened with, as bytes.

        :raises base.Fault: ``volume-key``; final where the key is gone or not for us.
        """
        client, root = self.clients.volume, f'/v3/{self.clients.project_id()}'
        try:
            about = client.get(f'{root}/volumes/{volume_id}/encryption')
            found = client.get(f'{root}/kodiak/keys/{about["encryption_key_id"]}')['key']
        except (errors.NotFound, errors.Forbidden, KeyError):
            raise base.Fault('volume-key', f'The key of the encrypted volume {volume_id} cannot be had.', final=True)
        except errors.Error as error:
            raise base.Fault('volume-key', f'The key of the encrypted volume {volume_id} could not be asked for: {error.message}')
        return base64.b64decode(found['passphrase'])
