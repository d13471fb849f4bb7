"""SAML 2.0: this cloud as service provider (people of elsewhere log in here) and as identity provider of other clouds.

It stands on lxml and signxml, which are installed only where they are asked for (the extra ``saml``): what needs them is imported
when SAML is used, and says clearly that they are missing. What is needed of an identity provider stands in the configuration,
in a group ``[idp_<id of the identity provider>]``.
"""
import hashlib
import importlib
import logging
import os
import threading
import time

import requests
from oslo_config import cfg
from sqlalchemy import exc

from kodiak.common import db, errors

from .. import oidc
from ..models import oauth_nonces
from . import keys

LOG = logging.getLogger(__name__)

OPTS = [
    cfg.StrOpt('metadata', mutable=True, help='SAML metadata of the provider: the path of a file, or a URL (https).'),
    cfg.StrOpt('entity_id', mutable=True, help='What the provider calls itself, where the metadata describes several.'),
    cfg.BoolOpt('allow_sha1', default=False, mutable=True,
                help='Take signatures with SHA-1, which are not safe any more: Keystone makes such.'),
]
#: Protocols that are SAML where the same provider speaks OpenID Connect too.
NAMES = ('saml2', 'saml', 'mapped')
METADATA = '/v3/OS-FEDERATION/saml2/metadata'
TIMEOUT = 10
KEEP = 3600
AGAIN = 60
LARGEST = 32 << 20


def part(name):
    """One of the modules that need lxml and signxml; 501 where those are missing."""
    try:
        return importlib.import_module('.' + name, __name__)
    except ImportError as error:
        if (error.name or '').partition('.')[0] not in ('lxml', 'signxml'):
            raise
        raise errors.NotImplementedHere(f'SAML needs the Python packages lxml and signxml, of which {error.name} is not '
                                        "installed: pip install 'kodiak-identity[saml]'.") from None


class Provider:
    """One identity provider, with what its metadata says; read again when the file changes, or every hour."""

    def __init__(self, options):
        self.options = options
        self._lock = threading.Lock()
        self._held, self._stamp = None, None
        self._read = self._tried = float('-inf')

    def description(self, again=False):
        """The :class:`metadata.Description`; ``again``: its keys didn't fit, it may have new ones."""
        held, now = self._held, time.monotonic()
        if held is not None and not self._changed() and not (
                now - self._tried > AGAIN and (again or now - self._read > KEEP)):
            return held
        # While one reads it anew, the others go on with what there is.
        if not self._lock.acquire(blocking=held is None):
            return held
        try:
            if self._held is held:
                self._load()
            return self._held
        finally:
            self._lock.release()

    def _remote(self):
        return '://' in self.options.metadata

    def _changed(self):
        try:
            return not self._remote() and os.stat(self.options.metadata).st_mtime_ns != self._stamp
        except OSError:
            return False

    def _load(self):
        if self._held is None and self._remote() and time.monotonic() - self._tried < TIMEOUT:
            # It has just failed: not each request has to wait for that.
            raise errors.BadGateway('The metadata of the identity provider cannot be read. Try again later.')
        self._tried = time.monotonic()
        try:
            stamp = None if self._remote() else os.stat(self.options.metadata).st_mtime_ns
            found = part('metadata').read(self._fetch(), self.options.entity_id)
        except (OSError, errors.BadRequest) as error:
            LOG.warning('SAML metadata %s: %s', self.options.metadata, error)
            if self._held is None or time.monotonic() - self._read > 24 * KEEP:
                raise errors.BadGateway(f'The metadata of the identity provider cannot be used. {getattr(error, "message", "")}'
                                        .rstrip()) from None
            return
        self._held, self._stamp, self._read = found, stamp, time.monotonic()

    def _fetch(self):
        place = self.options.metadata
        if not self._remote():
            with open(place, 'rb') as file:
                return file.read(LARGEST)
        if not place.startswith('https://'):
            raise errors.BadRequest('Its URL is none of https.')
        with requests.get(place, timeout=TIMEOUT, verify=self.options.ca_file or True, allow_redirects=False,
                          stream=True) as answer:
            if answer.status_code != 200:
                raise errors.BadRequest(f'Its URL answers {answer.status_code}.')
            return answer.raw.read(LARGEST, decode_content=True)


class Saml:
    """SAML in one process: our names and keys, and the identity providers that are configured."""

    def __init__(self, conf, folder):
        self._conf = conf
        self._found = {}
        self.keys = keys.Keys(folder)

    part = staticmethod(part)

    @property
    def base_url(self):
        """The URL of this cloud as others know it; 501 where that isn't configured: what a request says of it is not relied on."""
        found = self._conf.api.public_endpoint
        if not found:
            raise errors.NotImplementedHere('SAML needs to know under which URL this service is reached ([api] public_endpoint).')
        return found.rstrip('/').removesuffix('/v3')

    @property
    def entity_id(self):
        """What we call ourselves."""
        return self._conf.federation.saml_entity_id or self.base_url + METADATA

    def signing(self):
        """``(private key, certificate)`` of ours; 501 where there is none."""
        found = self.keys.signing()
        if found is None:
            raise errors.NotImplementedHere(f'There is no key for SAML in {self.keys.path}: run "kodiak-identity saml setup".')
        return found

    def _options(self, idp_id):
        group = f'idp_{idp_id}'
        self._conf.register_opts([*oidc.OPTS, *OPTS], group=group)
        return self._conf[group]

    def serves(self, idp_id, protocol_id):
        """True if SAML is what this protocol of an identity provider speaks."""
        options = self._options(idp_id)
        return bool(options.metadata) and (not options.issuer or protocol_id.lower() in NAMES)

    def provider(self, idp_id):
        """The :class:`Provider` of an identity provider."""
        found = self._found.get(idp_id)
        if found is None:
            found = self._found[idp_id] = Provider(self._options(idp_id))
        return found

    def begin(self, idp_id, url):
        """``(URL to which a browser is sent, ID of the question)``; the answer comes to ``url``."""
        destination = self.provider(idp_id).description().redirect
        if not destination:
            raise errors.NotImplementedHere(f'The identity provider {idp_id} offers browsers no redirect to its login.')
        return part('asking').redirect(self.entity_id, url, destination, self.signing())

    def ask_through_client(self, idp_id, url, state_of):
        """The envelope (bytes) that an enhanced client takes to its identity provider; the answer comes to ``url``."""
        signing = self.signing() if self.provider(idp_id).description().wants_signed else None
        return part('asking').for_client(self.entity_id, url, signing, state_of)

    def read(self, idp_id, root, url, request_id, audience=True):
        """The :class:`answers.Asserted` of a Response that came in at ``url``; 401 if it is not good."""
        answers, provider = part('answers'), self.provider(idp_id)
        description = provider.description()

        def attempt(description):
            return answers.read(root, answers.Expected(description, self.entity_id, url, request_id, audience,
                                                       provider.options.allow_sha1, self.keys.decrypting()))
        try:
            return attempt(description)
        except errors.Unauthorized:
            newer = provider.description(again=True)
            if newer is description:
                raise
            return attempt(newer)

    def once(self, database, asserted):
        """Remember an assertion; 401 if it was brought before."""
        nonce = hashlib.sha256(f'saml:{asserted.issuer}:{asserted.id}'.encode()).hexdigest()
        try:
            database.transact(lambda connection: connection.execute(oauth_nonces.insert().values(
                nonce=nonce, seen_at=db.utcnow())) and None)
        except exc.IntegrityError:
            raise errors.Unauthorized('The answer of the identity provider is not accepted: it was used before.') from None
