"""People of a directory: a domain of the running cloud in a real OpenLDAP server, which these tests start for themselves."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest
from cloud import Client, free_port, images, stop, until

ldap3 = pytest.importorskip('ldap3')
SLAPD = shutil.which('slapd', path='/usr/sbin:/usr/local/sbin:' + os.environ.get('PATH', ''))
SCHEMAS = pathlib.Path('/etc/ldap/schema')
pytestmark = [pytest.mark.system, pytest.mark.skipif(
    SLAPD is None or not SCHEMAS.is_dir(), reason='needs OpenLDAP: debconf-set-selections <<< '
    "'slapd slapd/no_configuration boolean true'; apt-get install --no-install-recommends slapd")]

SUFFIX, ROOT, SECRET = 'dc=example,dc=org', 'cn=root,dc=example,dc=org', 'the directory knows'
WORD = 'Sesame-5'
CONFIG = """
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
database mdb
suffix "{suffix}"
rootdn "{root}"
rootpw "{secret}"
directory {folder}/data
maxsize 16777216
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"""


class Directory:
    """A slapd with TLS alone: ``url``, ``certificate`` (a file that everybody may read), ``connection`` (its root's)."""

    def __init__(self, folder):
        self.folder, self.url = folder, f'ldaps://127.0.0.1:{free_port()}'
        self.certificate, self.process, self.connection = folder / 'certificate.pem', None, None
        (folder / 'data').mkdir()
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1',
                        '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', folder / 'key.pem', '-out', self.certificate],
                       check=True, capture_output=True)
        (folder / 'key.pem').chmod(0o600)
        (folder / 'slapd.conf').write_text(CONFIG.format(schemas=SCHEMAS, folder=folder, suffix=SUFFIX, root=ROOT, secret=SECRET))
        (folder / 'slapd.conf').chmod(0o600)

    def start(self):
        """Start it; returns when it answers."""
        self.process = subprocess.Popen([SLAPD, '-d', '0', '-h', self.url, '-f', self.folder / 'slapd.conf'],
                                        stdout=subprocess.DEVNULL, stderr=(self.folder / 'log').open('a'))
        server, end = ldap3.Server(self.url, get_info=ldap3.NONE, connect_timeout=5), time.monotonic() + 20
        while True:
            try:
                self.connection = ldap3.Connection(server, ROOT, SECRET, auto_bind=True, check_names=False, receive_timeout=10)
                return self
            except ldap3.core.exceptions.LDAPException:
                assert self.process.poll() is None and time.monotonic() < end, (self.folder / 'log').read_text()
                time.sleep(0.05)

    def stop(self):
        """End it."""
        stop(self.process)

    def add(self, dn, classes, **attributes):
        assert self.connection.add(f'{dn},{SUFFIX}', classes, attributes), self.connection.result

    def change(self, dn, **attributes):
        changed = {name: [(ldap3.MODIFY_REPLACE, value)] for name, value in attributes.items()}
        assert self.connection.modify(f'{dn},{SUFFIX}', changed), self.connection.result

    def person(self, name):
        self.add(f'uid={name},ou=People', ['inetOrgPerson'], uid=name, cn=name.title(), sn=name, userPassword=WORD,
                 mail=f'{name}@example.org', employeeType='TRUE')

    @staticmethod
    def members(*names):
        return [f'uid={name},ou=People,{SUFFIX}' for name in names]


@pytest.fixture(scope='module')
def directory():
    """A running :class:`Directory` with ann and ben, both in the team staff."""
    # Not below pytest's own folder, which is closed to the user that identity runs as.
    folder = pathlib.Path(tempfile.mkdtemp(prefix='kodiak-ldap-'))
    folder.chmod(0o755)
    found = Directory(folder)
    try:
        found.start()
        found.connection.add(SUFFIX, ['dcObject', 'organization'], {'dc': 'example', 'o': 'Example'})
        for unit in ('People', 'Teams'):
            found.add(f'ou={unit}', ['organizationalUnit'])
        for name in ('ann', 'ben'):
            found.person(name)
        found.add('cn=staff,ou=Teams', ['groupOfNames'], cn='staff', member=found.members('ann', 'ben'))
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
        'url': directory.url, 'tls_cacertfile': str(directory.certificate), 'user': ROOT, 'password': SECRET, 'suffix': SUFFIX,
        'user_tree_dn': f'ou=People,{SUFFIX}', 'user_id_attribute': 'uid', 'user_name_attribute': 'uid',
        'user_enabled_attribute': 'employeeType', 'user_enabled_default': 'TRUE', 'group_tree_dn': f'ou=Teams,{SUFFIX}',
        'group_id_attribute': 'cn', 'group_name_attribute': 'cn'}}})
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
    directory.change('cn=staff,ou=Teams', member=directory.members('ben'))
    try:
        assert ann.run('token issue').returncode != 0, 'ann has left the team'
        assert log_in('ben', project=project)('token issue')['project_id'] == project.id
    finally:
        directory.change('cn=staff,ou=Teams', member=directory.members('ann', 'ben'))
    directory.change('uid=ann,ou=People', employeeType='FALSE')
    try:
        refused = log_in('ann').run('token issue')
        assert refused.returncode != 0 and '401' in refused.stderr
    finally:
        directory.change('uid=ann,ou=People', employeeType='TRUE')
    refused = admin.run('user create', 'cid', '--domain', domain.id)
    assert refused.returncode != 0 and '403' in refused.stderr, 'identity writes to a directory only where that is allowed'


def test_who_leaves_the_directory_loses_the_token(admin, auth_url, directory, domain, project):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    directory.person('eve')
    user = admin('user show', 'eve', '--domain', domain.id)
    admin.text('role add reader', '--user', user['id'], '--project', project.id)
    eve = session.Session(auth=v3.Password(auth_url, user_id=user['id'], password=WORD, project_id=project.id))
    assert images(eve) == 200
    assert directory.connection.delete(f'uid=eve,ou=People,{SUFFIX}')
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
