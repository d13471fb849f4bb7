"""What tokens that somebody delegated (trusts, application credentials, OAuth) may not do."""
from kodiak.common import errors


def claims(req):
    """The claims of the request's token."""
    found = req.http.environ.get('kodiak.claims')
    if found is None:
        raise errors.Unauthorized()
    return found


def delegated(req):
    """True if the request's token was delegated."""
    found = claims(req)
    extra = found.extra
    return bool(extra.get('trust') or extra.get('oauth') or extra.get('app_cred') or 'ec2credential' in found.methods)


def refuse(req, what):
    """403 for any delegated token."""
    if delegated(req):
        raise errors.Forbidden(f'A delegated token may not be used to manage {what}.')


def refuse_lasting(req, what):
    """403 where the token would make or show something that outlives the delegation: all but unrestricted application
    credentials."""
    found = claims(req)
    extra = found.extra
    if extra.get('trust') or extra.get('oauth'):
        raise errors.Forbidden(f'A trust-scoped or OAuth-scoped token may not be used to manage {what}.')
    if 'ec2credential' in found.methods:
        raise errors.Forbidden(f'A token of an EC2 credential may not be used to manage {what}: log in otherwise.')
    if (extra.get('app_cred') or {}).get('restricted') and req.endpoint.method != 'GET':
        raise errors.Forbidden(f'A restricted application credential may not be used to manage {what}.')


def own_project(req, project_id):
    """403 where a delegated token reaches out of its project; secrets of a user without a project (TOTP) are out, too."""
    if delegated(req) and project_id != req.ctx.project_id:
        raise errors.Forbidden('A delegated token may be used for the credentials of its own project only.')
