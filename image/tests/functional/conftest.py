"""The image service in process: its real pipeline, SQLite, a file store, tokens from a test key."""
import os
import types

import pytest

from kodiak.common import db, migrate, policy, testing
from kodiak.common.runtime import Runtime
from kodiak.image import cmd, models, stores
from kodiak.image.api import API

#: An SQLAlchemy URL of a server's database that may be emptied, to run these tests on; SQLite if unset.
SERVER = os.environ.get('KODIAK_TEST_DATABASE')


class Cloud(types.SimpleNamespace):
    """``runtime``, ``identity``, ``application``, ``api``; and clients by persona."""

    def client(self, persona, **more):
        return testing.Client(self.application, self.identity.token(persona) if persona else None,
                              headers={'Accept': 'application/json'}, **more)

    def restart(self):
        """The pipeline anew, as after a change of the configuration."""
        self.runtime.background.clear()
        self.application = cmd.load(self.runtime)


def make(tmp_path, **overrides):
    """A :class:`Cloud`; ``overrides`` are ``group__name=value``."""
    conf = cmd.load_conf(files=[])
    conf.set_override('state_path', str(tmp_path))
    for name, value in overrides.items():
        group, _, option = name.partition('__')
        if group.startswith('store_'):
            stores.register(conf)
        conf.set_override(option, value, group=group)
    identity = testing.Identity()
    database = db.Database(SERVER or f'sqlite:///{tmp_path}/image.sqlite')
    if SERVER:
        models.metadata.drop_all(database.engine)
        migrate.prepare(database)
    models.metadata.create_all(database.engine)
    runtime = Runtime(name='image', conf=conf, db=database, policy=policy.Enforcer(conf), feed=identity.feed)
    return Cloud(runtime=runtime, identity=identity, application=cmd.load(runtime), api=API, path=tmp_path)


@pytest.fixture(autouse=True)
def checked_responses(monkeypatch):
    """Every response is held against its schema."""
    original = API.application
    monkeypatch.setattr(API, 'application', lambda runtime: original(runtime, validate_responses=True))


@pytest.fixture
def make_cloud(tmp_path):
    made = []

    def build(**overrides):
        made.append(make(tmp_path, **overrides))
        return made[-1]
    yield build
    for cloud in made:
        cloud.runtime.db.close()


@pytest.fixture
def cloud(make_cloud):
    return make_cloud()


@pytest.fixture
def member(cloud):
    return cloud.client(testing.MEMBER)


@pytest.fixture
def admin(cloud):
    return cloud.client(testing.ADMIN)


@pytest.fixture
def other(cloud):
    return cloud.client(testing.OTHER)


def create(client, **values):
    """A new image, as shown."""
    return client.post('/v2/images', {'name': 'test', 'disk_format': 'raw', 'container_format': 'bare', **values}).expect(201).json


def upload(client, image_id, data, status=204, **headers):
    """Upload data to an image."""
    sent = {'Content-Type': 'application/octet-stream', **{name.replace('_', '-'): value for name, value in headers.items()}}
    return client.put(f'/v2/images/{image_id}/file', data=data, headers=sent).expect(status)


@pytest.fixture
def helpers():
    return types.SimpleNamespace(create=create, upload=upload)
