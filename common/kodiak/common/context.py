"""Who asks, for which project, under which request ids.

Built from the headers that the token middleware sets, carried over RPC as a plain dictionary and
read by oslo.log for the ``[global_request_id request_id user project domain]`` prefix.
"""
import re
import uuid

from oslo_context import context as oslo_context

get_current = oslo_context.get_current
REQUEST_ID = re.compile(r'^req-[0-9a-fA-F-]{8,64}$')


def new_request_id():
    """A fresh ``req-<uuid4>``."""
    return 'req-' + str(uuid.uuid4())


class Context(oslo_context.RequestContext):
    """The caller of a request, of a saga step or of an RPC.

    Beyond oslo.context: ``token_expires``, and shorthands for the questions that handlers ask.
    """

    @property
    def is_system(self):
        """True with a token scoped to the whole deployment."""
        return self.system_scope == 'all'

    def owns(self, row):
        """True if ``row`` (a mapping or an object with ``project_id``) belongs to the caller's project."""
        owner = row['project_id'] if isinstance(row, dict) else row.project_id
        return owner is not None and owner == self.project_id


def _text(value):
    """A name out of the environ, where UTF-8 travels as Latin-1."""
    if value is None or value.isascii():
        return value
    try:
        return value.encode('latin-1').decode()
    except UnicodeError:
        return value


def from_environ(environ):
    """The context of a WSGI request, from the headers that the token middleware set."""
    get = environ.get
    roles = get('HTTP_X_ROLES')
    service_roles = get('HTTP_X_SERVICE_ROLES')
    context = Context(
        auth_token=get('HTTP_X_AUTH_TOKEN'),
        user_id=get('HTTP_X_USER_ID'), user_name=_text(get('HTTP_X_USER_NAME')),
        user_domain_id=get('HTTP_X_USER_DOMAIN_ID'), user_domain_name=_text(get('HTTP_X_USER_DOMAIN_NAME')),
        project_id=get('HTTP_X_PROJECT_ID'),
        project_name=_text(get('HTTP_X_PROJECT_NAME')),
        project_domain_id=get('HTTP_X_PROJECT_DOMAIN_ID'),
        project_domain_name=_text(get('HTTP_X_PROJECT_DOMAIN_NAME')),
        domain_id=get('HTTP_X_DOMAIN_ID'), domain_name=_text(get('HTTP_X_DOMAIN_NAME')),
        system_scope=get('HTTP_OPENSTACK_SYSTEM_SCOPE'),
        roles=roles.split(',') if roles else [],
        service_token=get('HTTP_X_SERVICE_TOKEN'), service_user_id=get('HTTP_X_SERVICE_USER_ID'),
        service_roles=service_roles.split(',') if service_roles else [],
        request_id=get('kodiak.request_id') or new_request_id(),
        global_request_id=get('kodiak.global_request_id'),
        overwrite=True)
    context.is_admin = 'admin' in context.roles
    return context


def forget():
    """This thread works for somebody else from here on: it must not log under the ids of whoever asked before."""
    vars(oslo_context._request_store).pop('context', None)


def background(request_id=None):
    """The context of work that no user asked for: a reconciler's, a periodic clean-up's."""
    return Context(is_admin=True, roles=['admin'], request_id=request_id or new_request_id(), overwrite=True)
