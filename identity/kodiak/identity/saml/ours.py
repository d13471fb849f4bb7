"""Where this cloud takes assertions, and its metadata."""
import urllib.parse

import sqlalchemy as sa

from ..models import identity_providers, protocols

_AUTH = '/v3/OS-FEDERATION/identity_providers/{}/protocols/{}/auth'
_BROWSER = '/v3/auth/OS-FEDERATION/identity_providers/{}/protocols/{}/websso'


def _url(core, path, idp_id, protocol_id):
    # By the configuration, not by the request: what an assertion says of its recipient is compared with this.
    return core.saml.base_url + path.format(urllib.parse.quote(idp_id, safe=''), urllib.parse.quote(protocol_id, safe=''))


def auth_url(core, idp_id, protocol_id):
    """Where clients bring envelopes."""
    return _url(core, _AUTH, idp_id, protocol_id)


def browser_url(core, idp_id, protocol_id):
    """Where browsers bring forms."""
    return _url(core, _BROWSER, idp_id, protocol_id)


def consumers(core, connection):
    """``[(binding, URL)]``: where assertions of the enabled SAML identity providers are taken."""
    documents = core.saml.part('documents')
    rows = connection.execute(
        sa.select(protocols.c.idp_id, protocols.c.id).join_from(protocols, identity_providers).where(
            identity_providers.c.enabled.is_(True)).order_by(protocols.c.idp_id, protocols.c.id)).all()
    return [(binding, url(core, row.idp_id, row.id)) for row in rows if core.saml.serves(row.idp_id, row.id)
            for binding, url in ((documents.POST, browser_url), (documents.REVERSE_SOAP, auth_url))]


def metadata(core):
    """Our metadata (bytes)."""
    writer = core.saml.part('metadata')
    core.saml.signing()
    with core.db.read() as connection:
        where = consumers(core, connection)
    return writer.write(core.saml.entity_id, core.saml.keys.certificates(),
                        core.saml.base_url + '/v3/auth/OS-FEDERATION/saml2', where)
