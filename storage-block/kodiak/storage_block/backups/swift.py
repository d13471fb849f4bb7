"""Backups in object storage, by the Swift API, in the account of the block storage service's own user."""
from kodiak.common import errors
from kodiak.storage_block.backups import base
from kodiak.storage_block.drivers.base import Fault

PAGE = 1000


class SwiftStore(base.Store):
    """The store ``swift``."""

    name = 'swift'

    def prepare(self, container):
        self._request('PUT', container, '')

    def put(self, container, name, data):
        self._request('PUT', container, name, data=data, headers={'Content-Type': 'application/octet-stream'})

    def get(self, container, name):
        return self._request('GET', container, name).content

    def names(self, container, prefix):
        found, marker = [], ''
        while True:
            try:
                page = self._request('GET', container, headers={'Accept': 'text/plain'}, params={
                    'prefix': prefix, 'limit': PAGE, 'marker': marker})
            except Fault as fault:
                if fault.final:
                    return found
                raise
            names = page.text.splitlines()
            found += names
            if len(names) < PAGE:
                return found
            marker = names[-1]

    def delete(self, container, name):
        try:
            self._request('DELETE', container, name)
        except Fault as fault:
            if not fault.final:
                raise

    def _request(self, method, container, name='', **options):
        where = '/'.join(part for part in (container, name) if part)
        try:
            path = f'/v1/AUTH_{self.clients.project_id()}/{where}'
            return self.clients.object_store.request(method, path, timeout=300, **options)
        except errors.NotFound:
            raise Fault('backup', 'The data of the backup is gone.', final=True)
        except errors.Error as error:
            raise Fault('backup', f'The object storage did not take or give the backup: {error.message}')
