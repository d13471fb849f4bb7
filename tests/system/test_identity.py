"""Identity through the stock client: users, projects, roles, application credentials."""
import pytest
from cloud import Client

pytestmark = pytest.mark.system


def test_user_project_role(admin, auth_url, unique):
    project, user, role = unique('project'), unique('user'), unique('role')
    try:
        assert admin('project create', project, '--description', 'of a test')['name'] == project
        assert admin('user create', user, '--project', project, '--password', 'Sesame-3')['enabled']
        admin('role create', role)
        admin.text('role add --user', user, '--project', project, role)
        admin.text('role add --user', user, '--project', project, 'member')
        names = {item['Role'] for item in admin('role assignment list', '--user', user, '--project', project, '--names')}
        assert names == {role, 'member'}
        as_user = Client('--os-auth-url', auth_url, '--os-username', user, '--os-password', 'Sesame-3',
                         '--os-project-name', project, '--os-user-domain-name', 'Default',
                         '--os-project-domain-name', 'Default', '--os-identity-api-version', '3')
        assert as_user('token issue')['project_id']
        refused = as_user.run('user list')
        assert refused.returncode != 0 and '403' in refused.stderr
        admin.text('user set', user, '--disable')
        assert as_user.run('token issue').returncode != 0
    finally:
        for kind, name in (('user', user), ('project', project), ('role', role)):
            admin.run(f'{kind} delete', name)


def test_application_credential(demo, auth_url, unique):
    name = unique('credential')
    made = demo('application credential create', name)
    try:
        as_credential = Client('--os-auth-type', 'v3applicationcredential', '--os-auth-url', auth_url,
                               '--os-application-credential-id', made['id'] if 'id' in made else made['ID'],
                               '--os-application-credential-secret', made['secret'] if 'secret' in made else made['Secret'])
        assert as_credential('token issue')['project_id']
    finally:
        demo.text('application credential delete', name)
    assert as_credential.run('token issue').returncode != 0


def test_catalog_names_every_service(admin):
    types = {item['Type'] for item in admin('catalog list')}
    assert {'identity', 'image', 'network', 'compute', 'placement'} <= types
