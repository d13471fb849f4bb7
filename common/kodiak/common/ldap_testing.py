"""An OpenLDAP server of a test's own, an ordinary process on ports of its own.

Nothing here is imported outside tests; whoever imports it is skipped where ldap3 or OpenLDAP is missing.
"""
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from kodiak.common import testing

ldap3 = pytest.importorskip('ldap3')

SLAPD = shutil.which('slapd', path='/usr/sbin:/usr/local/sbin:/usr/libexec:' + os.environ.get('PATH', ''))
SCHEMAS = pathlib.Path('/etc/ldap/schema')
needed = pytest.mark.skipif(SLAPD is None or not SCHEMAS.is_dir(), reason='needs OpenLDAP: debconf-set-selections <<< '
                            "'slapd slapd/no_configuration boolean true'; apt-get install --no-install-recommends slapd")

SUFFIX, ROOT, SECRET = 'dc=example,dc=org', 'cn=root,dc=example,dc=org', 'the directory knows'
PEOPLE, TEAMS = f'ou=People,{SUFFIX}', f'ou=Teams,{SUFFIX}'
#: What identity is told of such a directory, beside its ``url``.
OPTIONS = {
    'user': ROOT, 'password': SECRET, 'suffix': SUFFIX, 'user_tree_dn': PEOPLE, 'user_id_attribute': 'uid',
    'user_name_attribute': 'uid', 'user_enabled_attribute': 'employeeType', 'user_enabled_default': 'TRUE',
    'group_tree_dn': TEAMS, 'group_id_attribute': 'cn', 'group_name_attribute': 'cn',
}
CONFIG = """
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/inetorgperson.schema
include {schemas}/nis.schema
include {folder}/msuser.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
argsfile {folder}/args
sizelimit size.soft=3 size.hard=unlimited
{settings}
database mdb
suffix "{suffix}"
rootdn "{root}"
rootpw "{secret}"
directory {folder}/data
maxsize 16777216
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""


class Slapd:
    """A slapd: ``url`` (the first that it listens on), ``connection`` (bound as its root).

    :param folder: an empty one of its own. :param urls: what it listens on, ``ldap://`` or ``ldaps://`` with the address
        127.0.0.1. :param settings: lines for its configuration.
    """

    def __init__(self, folder, *urls, settings=''):
        self.folder, self.url, self.urls = folder, urls[0], urls
        self.process, self.connection = None, None
        (folder / 'data').mkdir()
        # What comes with OpenLDAP doesn't say how Active Directory compares these.
        schema = (SCHEMAS / 'msuser.schema').read_text()
        for name, rule in (('sAMAccountName', 'caseIgnoreMatch'), ('objectGUID', 'octetStringMatch')):
            schema = schema.replace(f"NAME '{name}'\n", f"NAME '{name}'\n\tEQUALITY {rule}\n")
        (folder / 'msuser.schema').write_text(schema)
        (folder / 'slapd.conf').write_text(CONFIG.format(
            schemas=SCHEMAS, folder=folder, suffix=SUFFIX, root=ROOT, secret=SECRET, settings=settings))

    def start(self, tls=None):
        """Start it; returns it when it answers. ``tls``: an ``ldap3.Tls`` to ask for before anything is said."""
        self.process = subprocess.Popen([SLAPD, '-d', '0', '-h', ' '.join(self.urls), '-f', self.folder / 'slapd.conf'],
                                        stdout=subprocess.DEVNULL, stderr=(self.folder / 'log').open('a'))
        # A certificate of these tests may be one of "localhost".
        server = ldap3.Server(self.url.replace('127.0.0.1', 'localhost'), get_info=ldap3.NONE, connect_timeout=5, tls=tls)
        until = time.monotonic() + 20
        while True:
            try:
                self.connection = ldap3.Connection(server, ROOT, SECRET, check_names=False, receive_timeout=10,
                                                   auto_bind=ldap3.AUTO_BIND_TLS_BEFORE_BIND if tls else True)
                return self
            except ldap3.core.exceptions.LDAPException:
                assert self.process.poll() is None and time.monotonic() < until, (self.folder / 'log').read_text()
                time.sleep(0.05)

    def stop(self):
        """End it; what it holds stays."""
        testing.end(self.process)

    def empty(self):
        """Remove all that it holds, and begin anew with its two branches."""
        self.connection.search(SUFFIX, '(objectClass=*)', attributes=[], paged_size=1000)
        for dn in sorted((found['dn'] for found in self.connection.response or ()), key=len, reverse=True):
            self.connection.delete(dn)
        self.add(SUFFIX, ['dcObject', 'organization'], dc='example', o='Example')
        for dn in (PEOPLE, TEAMS):
            self.add(dn, ['organizationalUnit'])

    def add(self, dn, classes, **attributes):
        """Add an entry."""
        assert self.connection.add(dn, classes, attributes), self.connection.result

    def change(self, dn, **attributes):
        """Replace attributes of an entry."""
        changed = {name: [(ldap3.MODIFY_REPLACE, value)] for name, value in attributes.items()}
        assert self.connection.modify(dn, changed), self.connection.result

    def delete(self, dn):
        """Delete an entry."""
        assert self.connection.delete(dn), self.connection.result

    def person(self, name, password='directory word', **more):
        """Add somebody."""
        self.add(f'uid={name},{PEOPLE}', ['inetOrgPerson'], **{
            'uid': name, 'cn': name, 'sn': name, 'userPassword': password, 'mail': f'{name}@example.org', **more})

    def team(self, name, *people):
        """Add a group of people (names)."""
        self.add(f'cn={name},{TEAMS}', ['groupOfNames'], cn=name, member=members(*people) or ['cn=nobody'])


def members(*names):
    """The entries of people."""
    return [f'uid={name},{PEOPLE}' for name in names]
