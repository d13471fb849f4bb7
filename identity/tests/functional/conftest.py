"""Identity in process: its real pipeline, a database in a file, keys in a folder."""
import contextlib
import os
import shutil

import pytest

from kodiak.common import db, migrate, testing, wsgi
from kodiak.identity import api as identity_api
from kodiak.identity import bootstrap, cmd, models

#: an SQLAlchemy URL of an empty database on a server, to run these tests against that instead of SQLite
SERVER = os.environ.get('KODIAK_TEST_DATABASE')
PASSWORD = 'correct horse'
URL = 'http://localhost/v3'


class Cloud:
    """A bootstrapped identity: ``core``, ``pipeline``, ``db``; makes users and clients."""

    def __init__(self, folder, overrides=()):
        args = ['--config-file', str(folder / 'identity.conf')]
        (folder / 'identity.conf').write_text(f'[DEFAULT]\nstate_path = {folder}\n[database]\n'
                                              f'connection = {SERVER or f"sqlite:///{folder}/i.sqlite"}\n')
        conf = cmd.load_conf(args)
        for group, name, value in (('identity', 'argon2_memory', 8192), ('identity', 'argon2_passes', 1), *overrides):
            conf.set_override(name, value, group)
        self.db = db.Database(conf.database.connection)
        self.runtime = cmd.build(conf, self.db)
        self.core = self.runtime.extra['core']
        self._admin = None
        original = identity_api.API.application
        try:
            identity_api.API.application = lambda runtime: original(runtime, validate_responses=True)
            self.pipeline = wsgi.load(self.runtime)
        finally:
            identity_api.API.application = original

    def login(self, name='admin', password=PASSWORD, project='admin', domain='default', scope=None, **more):
        """A token, as an Answer."""
        user = {'name': name, 'domain': {'id': domain}} if len(name) < 32 else {'id': name}
        auth = {'identity': {'methods': ['password'], 'password': {'user': {**user, 'password': password}}}}
        if scope is None and project:
            scope = {'project': {'name': project, 'domain': {'id': 'default'}} if len(project) < 32 else {'id': project}}
        if scope is not None:
            auth['scope'] = scope
        return testing.Client(self.pipeline).post('/v3/auth/tokens', {'auth': auth}, **more)

    def client(self, token=None, **more):
        """A client with a token's text, an Answer of :meth:`login`, or none."""
        text = token.headers['X-Subject-Token'] if isinstance(token, testing.Answer) else token
        return testing.Client(self.pipeline, text, **more)

    def admin(self):
        """A client of the administrator."""
        if self._admin is None:
            self._admin = self.login().expect(201)
        return self.client(self._admin)

    def move(self, url):
        """Have all endpoints of the catalog be at a URL."""
        admin = self.admin()
        for endpoint in admin.get('/v3/endpoints').json['endpoints']:
            admin.patch('/v3/endpoints/' + endpoint['id'], {'endpoint': {'url': url + '/v3'}}).expect(200)

    def user(self, name, password=PASSWORD, **more):
        """A new user, as the API shows it."""
        return self.admin().post('/v3/users', {'user': {'name': name, 'password': password, **more}}).expect(201).json['user']

    def project(self, name, **more):
        """A new project."""
        return self.admin().post('/v3/projects', {'project': {'name': name, **more}}).expect(201).json['project']

    def role_id(self, name):
        """The id of a role of all domains."""
        return self.admin().get(f'/v3/roles?name={name}').json['roles'][0]['id']

    def grant(self, user_id, role, project_id):
        """Give a role in a project."""
        self.admin().put(f'/v3/projects/{project_id}/users/{user_id}/roles/{self.role_id(role)}').expect(204)


def _bootstrap(cloud):
    bootstrap.run(cloud.core, PASSWORD, dict.fromkeys(bootstrap.INTERFACES, URL))


def _empty(database):
    with database.write() as connection:
        if connection.dialect.name == 'mysql':
            connection.exec_driver_sql('SET FOREIGN_KEY_CHECKS=0')
        for table in reversed(models.metadata.sorted_tables):
            connection.execute(table.delete())
        if connection.dialect.name == 'mysql':
            connection.exec_driver_sql('SET FOREIGN_KEY_CHECKS=1')


@pytest.fixture(scope='session')
def _template(tmp_path_factory):
    # Migrating and bootstrapping take a second; a copy of their result takes a millisecond.
    folder = tmp_path_factory.mktemp('identity')
    cloud = Cloud(folder)
    migrate.sync(cloud.db, 'identity')
    _bootstrap(cloud)
    cloud.core.ring.setup()
    cloud.core.crypt.setup()
    if not SERVER:
        with cloud.db.engine.connect() as connection:
            connection.exec_driver_sql('PRAGMA wal_checkpoint(TRUNCATE)')
    cloud.db.close()
    return folder


@pytest.fixture
def make_cloud(_template, tmp_path):
    """``make_cloud(*(group, option, value))``: a fresh :class:`Cloud`."""
    made = []

    def make(*overrides):
        folder = tmp_path / str(len(made))
        shutil.copytree(_template, folder)
        made.append(Cloud(folder, overrides))
        if SERVER:
            _empty(made[-1].db)
            _bootstrap(made[-1])
        return made[-1]
    yield make
    for cloud in made:
        cloud.db.close()


@pytest.fixture
def cloud(make_cloud):
    """A fresh :class:`Cloud`."""
    return make_cloud()


@pytest.fixture
def serve():
    """``serve(cloud)``: its API on a port of its own; the base URL."""
    with contextlib.ExitStack() as running:
        def start(cloud):
            url = running.enter_context(testing.serving(cloud.pipeline))
            cloud.move(url)
            return url
        yield start


@pytest.fixture
def server(cloud, serve):
    """The API of ``cloud`` on a port of its own; the base URL."""
    return serve(cloud)
