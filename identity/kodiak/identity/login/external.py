"""Method ``external``: the web server in front has authenticated somebody (Kerberos, a certificate) and says whom in REMOTE_USER.

It is offered where ``[auth] methods`` names it, and believes the WSGI environment alone: no header of a request becomes
REMOTE_USER, only the server or a filter of the pipeline can set it.
"""
from kodiak.common import errors

from .. import directory, people


def check(core, payload, attempt):
    """Check ``{}``; ``REMOTE_DOMAIN`` names the domain, the default domain if the server sets none."""
    environ = attempt.http.environ if attempt.http is not None else {}
    name, domain = environ.get('REMOTE_USER'), environ.get('REMOTE_DOMAIN')
    if not name:
        raise errors.Unauthorized('Could not find REMOTE_USER: nobody has been authenticated by the web server.')
    user = directory.user_of(core, {'name': name, 'domain': {'name': domain} if domain else {'id': 'default'}})
    if user is None or not people.enabled(core.conf, user):
        raise errors.Unauthorized()
    attempt.found(user)
