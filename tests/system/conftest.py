"""Fixtures of the system tests: a running cloud (devstack/stack.sh), through the stock client and openstacksdk."""
import secrets
import subprocess
import types
import uuid

import pytest
from cloud import Client


@pytest.fixture(scope='session')
def admin():
    """The openstack command as the administrator."""
    return Client('--os-cloud', 'kodiak-admin')


@pytest.fixture(scope='session')
def demo():
    """The openstack command as user demo in project demo."""
    return Client('--os-cloud', 'kodiak')


@pytest.fixture(scope='session')
def sdk():
    """openstacksdk as user demo."""
    import openstack
    with openstack.connect(cloud='kodiak') as connection:
        yield connection


@pytest.fixture(scope='session')
def admin_sdk():
    """openstacksdk as the administrator."""
    import openstack
    with openstack.connect(cloud='kodiak-admin') as connection:
        yield connection


@pytest.fixture(scope='session')
def auth_url(admin_sdk):
    """Where identity is: the base of its version 3."""
    return admin_sdk.config.config['auth']['auth_url'].rstrip('/').removesuffix('/v3') + '/v3'


@pytest.fixture
def person(admin_sdk, auth_url, unique):
    """``person(*roles)``: a new user with roles in a new project: ``id``, ``name``, ``password``, ``project_id``, ``project_name``,
    ``session`` (keystoneauth's, for the project)."""
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    made, identity = [], admin_sdk.identity

    def make(*roles):
        password = secrets.token_hex(16)
        project = identity.create_project(name=unique('project'))
        made.append((identity.delete_project, project))
        user = identity.create_user(name=unique('user'), password=password)
        made.append((identity.delete_user, user))
        for role in roles:
            identity.assign_project_role_to_user(project, user, identity.find_role(role, ignore_missing=False))
        mine = session.Session(auth=v3.Password(auth_url, user_id=user.id, password=password, project_id=project.id))
        return types.SimpleNamespace(id=user.id, name=user.name, password=password, project_id=project.id,
                                     project_name=project.name, session=mine)
    yield make
    for delete, what in reversed(made):
        delete(what)


@pytest.fixture
def unique():
    """A function that makes names which no other test uses."""
    return lambda word: f'{word}-{uuid.uuid4().hex[:8]}'


@pytest.fixture(scope='session')
def key(tmp_path_factory, sdk):
    """(name of a key pair of the demo user, file of its private key)."""
    path = tmp_path_factory.mktemp('key') / 'id'
    subprocess.run(['ssh-keygen', '-q', '-t', 'ecdsa', '-N', '', '-f', str(path)], check=True)
    name = 'system-' + uuid.uuid4().hex[:8]
    sdk.compute.create_keypair(name=name, public_key=path.with_suffix('.pub').read_text())
    yield name, path
    sdk.compute.delete_keypair(name, ignore_missing=True)


@pytest.fixture(scope='session')
def open_group(sdk):
    """A security group that lets in ping and SSH."""
    group = sdk.network.create_security_group(name='system-' + uuid.uuid4().hex[:8])
    for protocol, port in (('icmp', None), ('tcp', 22)):
        sdk.network.create_security_group_rule(security_group_id=group.id, direction='ingress', protocol=protocol,
                                               port_range_min=port, port_range_max=port, ethertype='IPv4')
    yield group
    sdk.network.delete_security_group(group)
