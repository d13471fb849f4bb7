"""Sagas, outbox, quotas and heartbeats on PostgreSQL and MariaDB, with several workers that race for the same rows."""
import collections
import glob
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import pytest
import sqlalchemy as sa

from kodiak.common import context, db, errors, heartbeat, migrate, outbox, quota, saga
from kodiak.common.runtime import Runtime
from kodiak.common.testing import free_port

pytestmark = pytest.mark.system


def as_user(name, *command):
    if os.geteuid() != 0:
        return list(command)
    return ['setpriv', f'--reuid={name}', f'--regid={name}', '--clear-groups', *command]


def until_open(port):
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError('the database did not start')


def start_postgresql(folder):
    bins = sorted(glob.glob('/usr/lib/postgresql/*/bin'))
    if not bins:
        pytest.skip('no PostgreSQL here')
    shutil.chown(folder, 'postgres')
    data, port = os.path.join(folder, 'data'), free_port()
    subprocess.run(as_user('postgres', f'{bins[-1]}/initdb', '-D', data, '-A', 'trust', '-E', 'UTF8'), check=True,
                   stdout=subprocess.DEVNULL, cwd=folder)
    process = subprocess.Popen(as_user('postgres', f'{bins[-1]}/postgres', '-D', data, '-p', str(port), '-k', folder,
                                       '-c', 'listen_addresses=127.0.0.1', '-c', 'fsync=off'),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    until_open(port)
    return process, f'postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres'


def start_mariadb(folder):
    if not shutil.which('mariadbd', path='/usr/sbin:/usr/bin'):
        pytest.skip('no MariaDB here')
    shutil.chown(folder, 'mysql')
    port = free_port()
    subprocess.run(['mariadb-install-db', '--no-defaults', '--user=mysql', f'--datadir={folder}/data', '--skip-test-db',
                    '--auth-root-authentication-method=normal'], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(
        ['/usr/sbin/mariadbd', '--no-defaults', '--user=mysql', f'--datadir={folder}/data', f'--socket={folder}/s',
         f'--port={port}', '--bind-address=127.0.0.1', f'--pid-file={folder}/pid', '--innodb-flush-log-at-trx-commit=0'],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_open(port)
    subprocess.run(['mariadb', '--no-defaults', '-h', '127.0.0.1', '-P', str(port), '-u', 'root', '-e',
                    'CREATE DATABASE kodiak CHARACTER SET utf8mb4'], check=True)
    return process, f'mysql+pymysql://root@127.0.0.1:{port}/kodiak?charset=utf8mb4'


@pytest.fixture(scope='module', params=[start_postgresql, start_mariadb], ids=['postgresql', 'mariadb'])
def url(request):
    folder = tempfile.mkdtemp(prefix='kodiak-db-')
    os.chmod(folder, 0o755)
    process, found = request.param(folder)
    yield found
    process.terminate()
    process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def apps(url):
    """Four Runtimes, each with a pool of its own, as four processes have it."""
    metadata = db.metadata()
    for module in (saga, outbox, quota, heartbeat):
        module.tables(metadata)
    things = sa.Table('things', metadata, sa.Column('id', sa.Integer, primary_key=True), sa.Column('project_id', sa.String(64)))
    made = [Runtime('try', None, db=db.Database(url), extra={'things': things}) for _ in range(4)]
    metadata.drop_all(made[0].db.engine)
    metadata.create_all(made[0].db.engine)
    yield made
    for app in made:
        app.db.close()


def test_names_that_are_not_quite_the_same(url):
    root, fresh = db.Database(url), db.Database(sa.engine.make_url(url).set(database='names'))
    with root.engine.connect().execution_options(isolation_level='AUTOCOMMIT') as connection:
        connection.exec_driver_sql('CREATE DATABASE names')
    try:
        migrate.prepare(fresh)
        metadata = db.metadata()
        table = sa.Table('names', metadata, sa.Column('name', sa.String(255), primary_key=True))
        metadata.create_all(fresh.engine)
        # With tables in it, it stays as it is.
        migrate.prepare(fresh)
        names = ['a', 'A', 'a ', '\u00e1', 'a\u0301', 'ss', '\u00df', '\U0001f600', '\U0001f601']
        with fresh.write() as connection:
            connection.execute(sa.insert(table), [{'name': name} for name in names])
        with fresh.read() as connection:
            for name in names:
                assert connection.execute(sa.select(table.c.name).where(table.c.name == name)).scalars().all() == [name]
    finally:
        fresh.close()
        root.close()


def finished(app):
    with app.db.read() as connection:
        return not connection.scalar(sa.select(sa.func.count()).select_from(saga.rows).where(
            saga.rows.c.next_run_at.is_not(None)))


def wait_for(function, seconds=60):
    deadline = time.time() + seconds
    while not function():
        assert time.time() < deadline, 'not in time'
        time.sleep(0.05)


def test_every_step_runs_once_though_four_workers_race(apps):
    ran, lock = collections.Counter(), threading.Lock()

    def step(name):
        def do(work):
            with lock:
                ran[work.resource_id, name] += 1
            if name == 'two' and not work.data.get('nudged') and ran[work.resource_id, name] == 1:
                raise saga.Wait(0.05, 'its turn')
            return {name: 'x' * 2000}
        return do
    kind = saga.Saga('try', [saga.Step(name, step(name)) for name in ('one', 'two', 'three')])
    workers = [saga.Worker(app, [kind], threads=4, poll=0.05) for app in apps]
    for worker in workers:
        worker.start()
    try:
        for number in range(40):
            with apps[number % 4].db.write() as connection:
                saga.start(connection, kind, f'r{number}', {}, context.Context(user_id='ü', project_id='p'))
        wait_for(lambda: finished(apps[0]))
    finally:
        for worker in workers:
            assert worker.stop()
    assert set(ran.values()) == {1, 2}
    assert all(count == (2 if name == 'two' else 1) for (_, name), count in ran.items())
    with apps[0].db.read() as connection:
        assert set(connection.scalars(sa.select(saga.rows.c.state))) == {'done'}
        assert connection.scalar(sa.select(sa.func.count()).select_from(saga.log)) == 120


def test_sagas_of_a_resource_take_turns_nudges_and_aborts(apps):
    order = []

    def wait(work):
        order.append('wait')
        raise saga.Wait(600, 'a report')
    first = saga.Saga('first', [saga.Step('wait', wait, lambda work: order.append('undo'))],
                      on_failure=lambda work, error: order.append(error.message))
    second = saga.Saga('second', [saga.Step('go', lambda work: order.append('second'))])
    with apps[0].db.write() as connection:
        saga.start(connection, first, 'r')
        saga.start(connection, second, 'r')
    one, two = (saga.Worker(app, [first, second]) for app in apps[:2])
    assert (one.run_due(), two.run_due()) == (1, 0)
    with apps[2].db.write() as connection:
        saga.nudge(connection, 'r')
    assert two.run_due() == 1
    with apps[2].db.write() as connection:
        assert saga.abort(connection, 'r', 'enough', name='first') == 1
    assert one.run_due() == 2
    assert order == ['wait', 'wait', 'undo', 'enough', 'second']


def test_a_dead_worker_is_replaced(apps):
    class Later:
        offset = 0

        def __call__(self):
            return time.time() + self.offset
    clock, ran = Later(), []

    def die_once(work):
        ran.append(1)
        if len(ran) == 1:
            raise SystemExit
    kind = saga.Saga('try', [saga.Step('one', die_once)])
    with apps[0].db.write() as connection:
        saga.start(connection, kind, 'r')
    with pytest.raises(SystemExit):
        saga.Worker(apps[0], [kind], clock=clock).run_due()
    other = saga.Worker(apps[1], [kind], clock=clock)
    assert other.run_due() == 0
    clock.offset = 31
    assert other.run_due() == 1
    assert finished(apps[0])
    other._purge(clock() + 1e6)


def test_the_outbox_keeps_the_order_of_each_resource_over_four_publishers(apps):
    seen, lock = collections.defaultdict(list), threading.Lock()

    def sink(message):
        with lock:
            seen[message['resource_id']].append(message['payload'])
    publishers = [outbox.Publisher(app, {'': sink}, poll=0.05) for app in apps]
    for publisher in publishers:
        publisher.start()
    try:
        for number in range(30):
            for resource in 'abc':
                with apps[number % 4].db.write() as connection:
                    outbox.add(connection, 'thing.update', number, resource_id=resource)
        wait_for(lambda: sum(map(len, seen.values())) >= 90)
    finally:
        for publisher in publishers:
            publisher.stop()
    assert dict(seen) == {resource: list(range(30)) for resource in 'abc'}


def test_the_last_of_a_quota_is_given_once(apps):
    made, refused = [], []
    things = apps[0].extra['things']

    def count(connection, project_id, resources):
        return {'thing': connection.scalar(sa.select(sa.func.count()).where(things.c.project_id == project_id))}

    def create(app):
        def insert(connection):
            quota.claim(connection, 'p', {'thing': 1}, count, {'thing': 5})
            connection.execute(sa.insert(things).values(project_id='p'))
        try:
            app.db.transact(insert)
            made.append(1)
        except errors.QuotaExceeded:
            refused.append(1)
    threads = [threading.Thread(target=create, args=(apps[number % 4],)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (5, 15)


def test_heartbeats_and_quota_rows_are_written_once(apps):
    for app in apps:
        with app.db.write() as connection:
            heartbeat.report(connection, 'host1', 'kodiak-try-agent', 'topic', details={'ö': 1})
            quota.put(connection, 'p', {'thing': 7})
    with apps[0].db.read() as connection:
        row, = db.all_dicts(connection, heartbeat.query())
        assert (row['report_count'], row['details']) == (4, {'ö': 1})
        assert heartbeat.is_up(row)
        assert quota.get(connection, 'p', {'thing': 1}) == {'thing': 7}
