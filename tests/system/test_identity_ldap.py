"""People of a directory: a domain of the running cloud in a real OpenLDAP server, which these tests start for themselves."""
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from cloud import Client, images, until

from kodiak.common import ldap_testing
from kodiak.common.ldap_testing import PEOPLE, TEAMS, Slapd, members
from kodiak.common.testing import free_port

pytestmark = [pytest.mark.system, ldap_testing.needed]
WORD = 'Sesame-5'


def person(directory, name):
    directory.person(name, WORD, employeeType='TRUE')


@pytest.fixture(scope='module')
def directory():
    """A slapd with TLS alone, in which ann and ben are, both in the team staff; ``certificate``: a file that everybody may read."""
    # Not below pytest's own folder, which is closed to the user that identity runs as.
    folder = pathlib.Path(tempfile.mkdtemp(prefix='kodiak-ldap-'))
    folder.chmod(0o755)
    certificate, key = folder / 'certificate.pem', folder / 'key.pem'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1',
                    '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', certificate],
                   check=True, capture_output=True)
    found = Slapd(folder, f'ldaps://127.0.0.1:{free_port()}',
                  settings=f'TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n')
    found.certificate = certificate
    for secret in (key, folder / 'slapd.conf'):
        secret.chmod(0o600)
    try:
        found.start()
        found.empty()
        for name in ('ann', 'ben'):
            person(found, name)
        found.team('staff', 'ann', 'ben')
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


@pytest.fixture
def domain(admin_sdk, directory, unique):
    """A domain of the cloud whose people are in the directory."""
    identity = admin_sdk.identity
    made = identity.create_domain(name=unique('directory'))
    answer = identity.put(f'/domains/{made.id}/config', json={'config': {'identity': {'driver': 'ldap'}, 'ldap': {
        **ldap_testing.OPTIONS, 'url': directory.url, 'tls_cacertfile': str(directory.certificate)}}})
    assert answer.status_code == 201, answer.text
    yield made
    identity.update_domain(made, is_enabled=False)
    identity.delete_domain(made)


@pytest.fixture
def project(admin_sdk, unique):
    """A project of the default domain."""
    made = admin_sdk.identity.create_project(name=unique('project'), domain_id='default')
    yield made
    admin_sdk.identity.delete_project(made)


@pytest.fixture
def log_in(auth_url, domain):
    """``log_in(name, word, project=None)``: the stock client as somebody of the domain."""
    def make(name, word=WORD, project=None):
        scope = ['--os-project-id', project.id] if project else []
        return Client('--os-auth-type', 'v3password', '--os-auth-url', auth_url, '--os-username', name, '--os-password', word,
                      '--os-user-domain-id', domain.id, *scope)
    return make


def test_people_of_the_directory_use_the_cloud(admin, directory, domain, project, log_in):
    assert {item['Name'] for item in admin('user list', '--domain', domain.id)} == {'ann', 'ben'}
    assert [item['Name'] for item in admin('group list', '--domain', domain.id)] == ['staff']
    assert {item['Name'] for item in admin('user list', '--domain', domain.id, '--group', 'staff')} == {'ann', 'ben'}
    assert admin('user show', 'ann', '--domain', domain.id)['email'] == 'ann@example.org'
    ann = log_in('ann', project=project)
    assert ann.run('token issue').returncode != 0, 'nobody has given ann a role yet'
    admin.text('role add member', '--group', 'staff', '--group-domain', domain.id, '--project', project.id)
    assert ann('token issue')['project_id'] == project.id
    # Another service takes the token, too.
    ann.text('image list')
    refused = log_in('ann', 'wrong', project).run('token issue')
    assert refused.returncode != 0 and '401' in refused.stderr
    directory.change(f'cn=staff,{TEAMS}', member=members('ben'))
    try:
        assert ann.run('token issue').returncode != 0, 'ann has left the team'
        assert log_in('ben', project=project)('token issue')['project_id'] == project.id
    finally:
        directory.change(f'cn=staff,{TEAMS}', member=members('ann', 'ben'))
    directory.change(f'uid=ann,{PEOPLE}', employeeType='FALSE')
    try:
        refused = log_in('ann').run('token issue')
        assert refused.returncode != 0 and '401' in refused.stderr
    finally:
        directory.change(f'uid=ann,{PEOPLE}', employeeType='TRUE')
    refused = admin.run('user create', 'cid', '--domain', domain.id)
    assert refused.returncode != 0 and '403' in refused.stderr, 'identity writes to a directory only where that is allowed'


def test_who_leaves_the_directory_loses_the_token(admin, auth_url, directory, domain, project):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    person(directory, 'eve')
    user = admin('user show', 'eve', '--domain', domain.id)
    admin.text('role add reader', '--user', user['id'], '--project', project.id)
    eve = session.Session(auth=v3.Password(auth_url, user_id=user['id'], password=WORD, project_id=project.id))
    assert images(eve) == 200
    directory.delete(f'uid=eve,{PEOPLE}')
    # Who is looked at is looked up; otherwise it is found within five minutes.
    assert admin.run('user show', user['id']).returncode != 0

    until(10, 'the end of the token at the image service', lambda: images(eve) == 401)


def test_a_directory_that_is_away_stops_nobody_else(admin, directory, domain, log_in):
    assert log_in('ben')('token issue')['user_id']
    directory.stop()
    try:
        refused = log_in('ben').run('token issue')
        assert refused.returncode != 0 and '503' in refused.stderr
        assert admin('token issue')['user_id']
    finally:
        directory.start()
    until(60, 'ben logs in again', lambda: log_in('ben').run('token issue').returncode == 0, 1)
