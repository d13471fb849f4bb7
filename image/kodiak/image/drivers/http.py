"""Data that stays where it is, on a web server: locations that users add. It is only read."""
from kodiak.common import errors

from .. import web
from . import base


class HttpStore(base.Store):
    """Locations on web servers. What may be reached is what a web-download may reach (the group ``[imports]``)."""

    OPTS = base.COMMON
    SCHEME = 'http'
    read_only = True

    def prepare(self):
        pass

    def create(self, key, size=None):
        raise errors.BadRequest(f"The store '{self.id}' can only be read.")

    def open(self, key, offset=0):
        try:
            return web.Fetch(self.guard, key, offset)
        except errors.Unavailable as error:
            raise base.StoreUnavailable(error.message) from None
        except errors.BadRequest as error:
            raise base.NoSuchData(error.message) from None

    def remove(self, key):
        """What others keep is not ours to remove."""

    def url(self, key):
        return key

    def takes(self, url):
        return url.startswith(('http://', 'https://'))

    def check(self, url):
        self.guard.check(url)
