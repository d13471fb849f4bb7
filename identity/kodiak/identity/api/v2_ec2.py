"""Version 2.0: EC2 credentials, and logging in with signed EC2 and S3 requests. As version 3 does it, in the form of its age."""
from kodiak.common import api, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import people
from . import credentials, kit, rules
from .v2_tokens import ACCESS, DOMAIN, access, of_default

routes = api.Routes('version 2.0, EC2', '/v2.0')

PATH = '/users/{user_id}/credentials/OS-EC2'
SHOWN = schema.obj({'user_id': schema.STRING, 'tenant_id': schema.STRING, 'access': schema.STRING, 'secret': schema.STRING,
                    'trust_id': schema.TEXT}, ['user_id', 'tenant_id', 'access', 'secret'])


def view(shown):
    """An EC2 credential of version 3 as version 2.0 shows it."""
    return {name: value for name, value in shown.items() if name != 'links'}


def load(req, user_id, credential_id=None):
    """The user of the path, who must be of the default domain, as a policy target; its credential as ``req.row``."""
    found = credentials.load_owner(req, user_id, credential_id)
    with req.db.read() as connection:
        user = people.by_id(connection, user_id)
    if user is not None and user['domain_id'] != DOMAIN:
        raise errors.NotFound(f'Could not find user: {user_id}.')
    return found


@routes.get(PATH, rule='identity:ec2_list_credentials', default=credentials.EC2_READ, load=load,
            response=schema.wrap('credentials', schema.array(SHOWN)), summary='List EC2 credentials of a user')
def list_credentials(req, user_id):
    """List the EC2 credentials of a user."""
    return {'credentials': [view(each) for each in credentials.list_ec2(req, user_id)['credentials']]}


@routes.post(PATH, rule='identity:ec2_create_credential', default=credentials.EC2_WRITE, load=load, status=201,
             body=schema.obj({'tenant_id': kit.ID}, ['tenant_id'], extra=True), response=schema.wrap('credential', SHOWN),
             summary='Create an EC2 credential')
def create(req, user_id):
    """Create an EC2 credential for a user and a tenant."""
    return {'credential': view(credentials.create_ec2(req, user_id)['credential'])}


@routes.get(PATH + '/{credential_id}', rule='identity:ec2_get_credential', default=credentials.EC2_READ, load=load,
            response=schema.wrap('credential', SHOWN), summary='Show an EC2 credential')
def show(req, user_id, credential_id):
    """Show an EC2 credential."""
    return {'credential': view(credentials.show_ec2(req, user_id, credential_id)['credential'])}


@routes.delete(PATH + '/{credential_id}', rule='identity:ec2_delete_credential', default=credentials.EC2_WRITE, load=load,
               summary='Delete an EC2 credential')
def delete(req, user_id, credential_id):
    """Delete an EC2 credential."""
    credentials.delete_ec2(req, user_id, credential_id)


def _answer(req, text, claims):
    of_default(claims)
    return access(cores.of(req), text, claims)


@routes.post('/ec2tokens', rule='identity:ec2tokens_validate', default=rules.SERVICE, body=credentials.ASKED, response=ACCESS,
             summary='Log in with a signed EC2 request')
def ec2_token(req):
    """A token for who signed an EC2 request; for the services that receive such requests."""
    return _answer(req, *credentials.by_ec2(req))


@routes.post('/s3tokens', rule='identity:s3tokens_validate', default=rules.SERVICE, body=credentials.ASKED, response=ACCESS,
             summary='Log in with a signed S3 request')
def s3_token(req):
    """A token for who signed an S3 request; for the services that receive such requests."""
    return _answer(req, *credentials.by_s3(req))
