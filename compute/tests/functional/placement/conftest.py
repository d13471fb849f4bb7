import types

import pytest

from kodiak.common import authtoken, config, db, policy, testing, wsgi
from kodiak.compute import models
from kodiak.compute.api import placement


@pytest.fixture
def service(tmp_path):
    conf = config.load('compute', files=[])
    database = db.Database(f'sqlite:///{tmp_path}/placement.sqlite')
    models.metadata.create_all(database.engine)
    runtime = types.SimpleNamespace(conf=conf, db=database, policy=policy.Enforcer(conf), name='compute', faults=list)
    identity = testing.Identity()
    application = placement.API.application(runtime, validate_responses=True)
    pipeline = wsgi.Front(authtoken.AuthToken(application, identity.feed, delay=True), 'placement')
    yield types.SimpleNamespace(pipeline=pipeline, identity=identity, db=database, api=placement.API)
    database.close()


@pytest.fixture
def as_(service):
    def client(persona, version='1.39'):
        return testing.Client(service.pipeline, service.identity.token(persona) if persona else None,
                              headers={'OpenStack-API-Version': 'placement ' + version} if version else None)
    return client


@pytest.fixture
def admin(as_):
    return as_(testing.ADMIN)
