"""A real OpenID provider for tests: Glewlwyd (Debian package glewlwyd), an ordinary process with a folder and a port of its own."""
import gzip
import pathlib
import secrets
import shutil
import sqlite3
import subprocess
import time

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kodiak.common import testing

COMMAND = shutil.which('glewlwyd')
SCHEMA = pathlib.Path('/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz')
MISSING = None if COMMAND and SCHEMA.exists() else (
    'needs an OpenID provider: DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends glewlwyd dbconfig-no-thanks, '
    "after debconf-set-selections <<< 'glewlwyd glewlwyd/config_type select No configuration'")
MODULES = pathlib.Path('/usr/lib/glewlwyd')
CONFIG = """
port={port}
bind_address="127.0.0.1"
external_url="{url}"
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="WARNING"
cookie_secure=0
session_key="SESSION"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="{modules}/user"
client_module_path="{modules}/client"
user_auth_scheme_module_path="{modules}/scheme"
plugin_module_path="{modules}/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3" path = "{folder}/db" }}
"""


class Provider:
    """A running Glewlwyd: ``issuer``; people are added with :meth:`person`, applications with :meth:`application`."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        self.url = f'http://127.0.0.1:{port}'
        self.issuer = f'{self.url}/api/oidc'
        self.process, self._admin = None, requests.Session()

    def start(self):
        """Make its database, start it, and let it speak OpenID Connect."""
        with sqlite3.connect(self.folder / 'db') as database:
            database.executescript(gzip.decompress(SCHEMA.read_bytes()).decode())
        database.close()
        config = self.folder / 'glewlwyd.conf'
        config.write_text(CONFIG.format(port=self.port, url=self.url, folder=self.folder, modules=MODULES))
        self.process = subprocess.Popen([COMMAND, f'--config-file={config}'], stderr=subprocess.STDOUT,
                                        stdout=(self.folder / 'log').open('a'))
        end = time.monotonic() + 20
        while True:
            try:
                # What it comes with; nobody else gets to it before this is changed.
                self._log_in('admin', 'password', self._admin)
                break
            except requests.ConnectionError:
                assert self.process.poll() is None and time.monotonic() < end, (self.folder / 'log').read_text()[-2000:]
                time.sleep(0.05)
        self._ask('PUT', '/user/admin', {'name': 'admin', 'password': secrets.token_urlsafe(), 'enabled': True,
                                         'scope': ['g_admin', 'g_profile']})
        self._speak()
        return self

    def stop(self):
        """End the process."""
        testing.end(self.process)

    def _ask(self, method, path, body=None, session=None):
        answer = (session or self._admin).request(method, f'{self.url}/api{path}', json=body, timeout=10)
        assert answer.status_code == 200, f'{method} {path}: {answer.status_code} {answer.text}'
        return answer

    def _log_in(self, name, password, session):
        return self._ask('POST', '/auth/', {'username': name, 'password': password}, session)

    def _speak(self):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        users = self._ask('GET', '/mod/user/database').json()
        users['parameters']['data-format']['groups'] = {'multiple': True, 'read': True, 'write': True}
        self._ask('PUT', '/mod/user/database', users)
        self._ask('PUT', '/mod/user/database/reset')
        self._ask('POST', '/mod/plugin/', {
            'module': 'oidc', 'name': 'oidc', 'display_name': 'OpenID Connect', 'order_rank': 0, 'readonly': False, 'parameters': {
                'iss': self.issuer, 'jwt-type': 'rsa', 'jwt-key-size': '256', 'key': private.decode(), 'cert': public.decode(),
                'access-token-duration': 3600, 'refresh-token-duration': 86400, 'code-duration': 600, 'refresh-token-rolling': True,
                'auth-type-code-enabled': True, 'auth-type-password-enabled': True, 'auth-type-client-enabled': True,
                'auth-type-refresh-enabled': True, 'auth-type-token-enabled': False, 'auth-type-device-enabled': False,
                'allow-non-oidc': True, 'jwks-show': True, 'pkce-allowed': True, 'pkce-method-plain-allowed': False,
                'introspection-revocation-allowed': True, 'introspection-revocation-allow-target-client': True,
                'subject-type': 'public', 'email-claim': 'mandatory', 'name-claim': 'mandatory',
                'claims': [{'name': 'groups', 'user-property': 'groups', 'type': 'string', 'mandatory': True}]}})

    def application(self, name, secret, *redirects):
        """Register an application that people log in to."""
        self._ask('POST', '/client/', {
            'client_id': name, 'name': name, 'client_secret': secret, 'password': secret, 'confidential': True, 'enabled': True,
            'scope': ['openid'], 'redirect_uri': list(redirects),
            'token_endpoint_auth_method': ['client_secret_basic', 'client_secret_post'],
            'authorization_type': ['code', 'password', 'client_credentials', 'refresh_token']})

    def person(self, name, password, *groups):
        """Register somebody."""
        self._ask('POST', '/user/', {'username': name, 'password': password, 'name': name.title(), 'email': f'{name}@example.org',
                                     'enabled': True, 'scope': ['openid', 'g_profile'], 'groups': list(groups)})

    def browser(self, name, password, application):
        """A ``requests.Session`` of somebody who is logged in here and lets ``application`` know who they are."""
        session = requests.Session()
        self._log_in(name, password, session)
        self._ask('PUT', f'/auth/grant/{application}', {'scope': 'openid'}, session)
        return session
