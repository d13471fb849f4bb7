import types

import pytest
import sqlalchemy as sa

from kodiak.common import api, authtoken, config, db, errors, policy, testing, wsgi
from kodiak.common.api import listing, openapi, schema

metadata = db.metadata()
things = sa.Table('things', metadata, sa.Column('id', sa.String(36), primary_key=True), sa.Column('name', sa.String(64)),
                  sa.Column('size', sa.Integer), sa.Column('project_id', sa.String(36)), sa.Column('shared', sa.Boolean))
routes = api.Routes('things')
LIST = api.Listing(things.c.id, {'name': things.c.name, 'size': things.c.size}, [('name', 'asc')],
                   filters={'name': things.c.name, 'size': things.c.size, 'shared': things.c.shared}, max_limit=10)
THING = schema.obj({'id': schema.STRING, 'name': schema.TEXT, 'size': schema.nullable(schema.INTEGER)}, ['id'])


def load_thing(req, thing_id):
    with req.db.read() as connection:
        row = db.one(connection, sa.select(things).where(things.c.id == thing_id))
    if row is None or not (req.ctx.owns(row) or req.ctx.is_admin):
        raise errors.NotFound(f'Thing {thing_id} could not be found.')
    return row


def view(row):
    return {'id': row['id'], 'name': row['name'], 'size': row['size']}


@routes.get('/things', rule='things:list', default=policy.READER, query=LIST.parameters(),
            response=schema.obj({'things': schema.array(THING), 'next': schema.STRING}), summary='List things')
def list_things(req):
    with req.db.read() as connection:
        rows, more = LIST.page(connection, sa.select(things), req.query)
    answer = {'things': [view(row._mapping) for row in rows]}
    if more:
        answer['next'] = listing.next_url(req, rows[-1].id)
    return answer


@routes.post('/things', rule='things:create', default=policy.MEMBER, status=201, summary='Create a thing',
             body=schema.wrap('thing', schema.obj({'name': schema.NAME, 'size': schema.INTEGER}, ['name'])),
             response=schema.wrap('thing', THING))
def create_thing(req):
    row = {'id': db.new_id(), 'size': None, **req.body['thing'], 'project_id': req.ctx.project_id, 'shared': False}
    with req.db.write() as connection:
        connection.execute(things.insert().values(row))
    return {'thing': view(row)}


@routes.get('/things/{thing_id}', rule='things:show', default=policy.PROJECT_READER, load=load_thing,
            response=schema.wrap('thing', THING), until='2.4', summary='Show a thing')
def show_thing(req, thing_id):
    return {'thing': view(req.target)}


@routes.get('/things/{thing_id}', rule='things:show', default=policy.PROJECT_READER, load=load_thing, since='2.5',
            summary='Show a thing')
def show_thing_25(req, thing_id):
    return {'thing': {**view(req.target), 'shared': req.target['shared']}}


@routes.post('/things/{thing_id}/action', action='grow', rule='things:grow', default=policy.PROJECT_MEMBER, load=load_thing,
             body=schema.wrap('grow', schema.obj({'by': {'type': 'integer', 'minimum': 1}}, ['by'])), status=202)
def grow(req, thing_id):
    with req.db.write() as connection:
        connection.execute(things.update().where(things.c.id == thing_id)
                           .values(size=(req.target['size'] or 0) + req.body['grow']['by']))


@routes.post('/things/{thing_id}/action', action='break', rule='things:break', default=policy.ADMIN, load=load_thing,
             body=schema.obj({'break': {}}), status=202)
def break_(req, thing_id):
    if req.body['break']:
        raise RuntimeError('secret detail')


@routes.put('/things/{thing_id}/data', rule='things:data', default=policy.MEMBER, raw=True, media=('application/x-data',),
            summary='Echo data')
def echo(req, thing_id):
    return api.Response(iter([req.stream().read()]), media_type='application/x-data')


@routes.get('/', public=True, summary='Versions')
def versions(req):
    return {'base': req.base_url}


def faults(error, request_id, accept):
    import orjson
    return orjson.dumps({'fault': {'code': error.code, 'message': error.message, 'kind': error.kind}}), 'application/json'


@pytest.fixture
def service(tmp_path, request):
    conf = config.load('test', files=[])
    database = db.Database(f'sqlite:///{tmp_path}/t.sqlite')
    metadata.create_all(database.engine)
    identity = testing.Identity()
    runtime = types.SimpleNamespace(conf=conf, db=database, policy=policy.Enforcer(conf), name='test', faults=list)
    made = api.Api('test', [routes], faults, api.Microversions('thing', (2, 1), (2, 10), 'X-Thing-Version'), title='Things',
                   **getattr(request, 'param', {}))
    application = made.application(runtime, validate_responses=True)
    pipeline = authtoken.AuthToken(application, identity.feed, delay=True, www_authenticate_uri='http://identity/v3')
    pipeline = wsgi.Front(wsgi.SizeLimit(pipeline, 100000, ''), 'test')
    made.identity, made.pipeline = identity, wsgi.Cors(pipeline, ['https://page.example'])
    yield made
    database.close()


@pytest.fixture
def as_(service):
    def client(persona):
        return testing.Client(service.pipeline, service.identity.token(persona) if persona else None)
    return client


def test_create_and_show(as_):
    thing = as_(testing.MEMBER).post('/things', {'thing': {'name': 'x'}}).expect(201).json['thing']
    shown = as_(testing.READER).get('/things/' + thing['id']).expect(200)
    assert shown.json['thing'] == thing
    assert shown.headers['OpenStack-API-Version'] == 'thing 2.1' and shown.headers['X-Thing-Version'] == '2.1'
    assert shown.headers['X-Openstack-Request-Id'].startswith('req-')
    as_(testing.OTHER).get('/things/' + thing['id']).expect(404)


@pytest.mark.parametrize('service', [{'forbid_unknown': True}], indirect=True)
def test_what_is_not_there_may_be_403_to_those_who_could_not_see_it(as_):
    as_(testing.NOROLE).get('/things/x').expect(403)
    as_(testing.ADMIN).get('/things/x').expect(404)


def test_microversions_choose_the_handler_and_bad_ones_are_refused(as_):
    client = as_(testing.MEMBER)
    path = '/things/' + client.post('/things', {'thing': {'name': 'x'}}).json['thing']['id']
    assert client.get(path, headers={'OpenStack-API-Version': 'thing 2.5'}).json['thing']['shared'] is False
    assert client.get(path, headers={'X-Thing-Version': 'latest'}).headers['X-Thing-Version'] == '2.10'
    assert 'shared' not in client.get(path, headers={'OpenStack-API-Version': 'compute 2.9, thing 2.4'}).json['thing']
    client.get(path, headers={'OpenStack-API-Version': 'thing 2.11'}).expect(406)
    client.get(path, headers={'OpenStack-API-Version': 'thing two'}).expect(400)


def test_bad_bodies_name_the_field(as_):
    client = as_(testing.MEMBER)
    assert 'thing.size' in client.post('/things', {'thing': {'name': 'x', 'size': 'big'}}).expect(400).json['fault']['message']
    assert 'nme' in client.post('/things', {'thing': {'name': 'x', 'nme': 'x'}}).expect(400).json['fault']['message']
    client.post('/things', data=b'{').expect(400)
    client.post('/things').expect(400)
    client.post('/things', data=b'x' * 200000).expect(413)


def test_a_nul_is_refused_wherever_it_stands(as_):
    client = as_(testing.MEMBER)
    client.post('/things', {'thing': {'name': 'a\x00b'}}).expect(400)
    client.post('/things', {'thing': {'name': 'a', 'x\x00': 1}}).expect(400)
    client.post('/things', {'thing': {'name': 'a\\u0000'}}).expect(201)
    client.get('/things?name=%00').expect(400)
    client.get('/things/%00').expect(404)


def test_pages_follow_each_other_and_sorting_has_several_keys(as_):
    client = as_(testing.MEMBER)
    for index in range(25):
        client.post('/things', {'thing': {'name': f'n{index % 5}', **({'size': index} if index % 2 else {})}}).expect(201)
    seen, path = [], '/things?limit=4&sort_key=size&sort_dir=desc&sort_key=name'
    while path:
        answer = client.get(path).expect(200).json
        seen += answer['things']
        path = answer.get('next', '').removeprefix('http://localhost')
    assert len({thing['id'] for thing in seen}) == 25
    sizes = [-1 if thing['size'] is None else thing['size'] for thing in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert client.get('/things?limit=0').json == {'things': []}
    assert len(client.get('/things?limit=100').json['things']) == 10
    assert len(client.get('/things?name=n1&limit=9').json['things']) == 5
    for bad in ('sort_key=no', 'limit=-1', 'limit=x', 'marker=none', 'size=big', 'sort_dir=up'):
        client.get('/things?' + bad).expect(400)


def test_actions_are_chosen_by_the_bodys_key(as_):
    client = as_(testing.MEMBER)
    path = '/things/' + client.post('/things', {'thing': {'name': 'x'}}).json['thing']['id']
    client.post(path + '/action', {'grow': {'by': 3}}).expect(202)
    assert client.get(path).json['thing']['size'] == 3
    client.post(path + '/action', {'grow': {'by': 0}}).expect(400)
    client.post(path + '/action', {'shrink': {}}).expect(400)
    client.post(path + '/action', {'break': None}).expect(403)


def test_streams_pass_as_they_are_and_other_media_types_are_refused(as_):
    client = as_(testing.MEMBER)
    assert client.put('/things/x/data', data=b'abc', headers={'Content-Type': 'application/x-data'}).expect(200).data == b'abc'
    client.put('/things/x/data', data=b'abc', headers={'Content-Type': 'text/plain'}).expect(415)
    client.put('/things/x/data', data=b'abc').expect(415)


def test_a_defect_answers_500_without_detail(as_):
    path = '/things/' + as_(testing.MEMBER).post('/things', {'thing': {'name': 'x'}}).json['thing']['id']
    answer = as_(testing.ADMIN).post(path + '/action', {'break': True}).expect(500)
    assert b'secret' not in answer.data


def test_unknown_routes_and_methods_answer_in_the_fault_shape(as_):
    client = as_(testing.MEMBER)
    assert client.get('/nothing').expect(404).json['fault']['code'] == 404
    assert client.put('/things').expect(405).headers['Allow'] == 'GET, HEAD, POST'


def test_a_page_reads_two_statements(as_, service):
    with db.count_queries() as queries:
        as_(testing.READER).get('/things').expect(200)
    assert len(queries) == 1


def test_every_route_as_every_persona(as_, service):
    thing = as_(testing.MEMBER).post('/things', {'thing': {'name': 'x'}}).json['thing']['id']
    table = testing.check_personas(service, as_, {'thing_id': thing})
    assert table[('GET', '/things/{thing_id}', None)] == {'admin': 200, 'member': 200, 'reader': 200, 'other project': 404,
                                                          'no role': 403}


def test_a_revoked_token_is_refused_at_once(as_, service):
    client = as_(testing.MEMBER)
    client.get('/things').expect(200)
    service.identity.revoke(user_id=testing.MEMBER.user_id)
    refused = client.get('/things').expect(401)
    assert refused.headers['WWW-Authenticate'] == 'Keystone uri="http://identity/v3"'


def test_identity_headers_of_a_client_are_dropped(service):
    testing.Client(service.pipeline, headers={'X-User-Id': 'x', 'X-Roles': 'admin'}).get('/things').expect(401)


def test_preflight(as_):
    answer = as_(None).request('OPTIONS', '/things', headers={'Origin': 'https://page.example',
                                                             'Access-Control-Request-Method': 'GET'}).expect(200)
    assert answer.headers['Access-Control-Allow-Origin'] == 'https://page.example'


def test_the_openapi_document_and_the_reference_list_every_endpoint(service):
    document = openapi.document(service)
    assert set(document['paths']) == {'/', '/things', '/things/{thing_id}', '/things/{thing_id}/action', '/things/{thing_id}/data'}
    assert set(document['paths']['/things/{thing_id}/data']['put']['requestBody']['content']) == {'application/x-data'}
    assert document['paths']['/things/{thing_id}/action']['post']['x-actions'] == ['break', 'grow']
    assert '``things:grow``' in openapi.reference(service)


def test_two_applications_of_one_api_work_with_their_own_databases(as_, service, tmp_path):
    first = service.runtime
    second = types.SimpleNamespace(**{**vars(first), 'db': db.Database(f'sqlite:///{tmp_path}/second.sqlite')})
    metadata.create_all(second.db.engine)
    service.application(second)
    try:
        as_(testing.MEMBER).post('/things', {'thing': {'name': 'x'}}).expect(201)
        with second.db.read() as connection:
            assert connection.execute(sa.select(things)).all() == []
        with first.db.read() as connection:
            assert len(connection.execute(sa.select(things)).all()) == 1
    finally:
        second.db.close()
