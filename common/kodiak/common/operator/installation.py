"""What is installed on this host: the services that have a configuration file, their databases, sockets and APIs."""
import contextlib
import glob
import http.client
import importlib
import os
import socket
import stat

import orjson

from kodiak.common import config
from kodiak.common.db import Database

DEFAULT_FOLDER = '/etc/kodiak'


class Service:
    """One service with a configuration file here.

    ``name``, ``path`` (of its file), ``conf``; ``problem`` is a sentence instead if the file cannot be read.
    """

    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path).removesuffix('.conf')
        self.conf, self.problem = None, None
        try:
            options = importlib.import_module(f'kodiak.{self.name.replace("-", "_")}.conf')
        except ImportError:
            options = None
        try:
            self.conf = config.load(self.name, getattr(options, 'OPTS', None), args=[], files=[path],
                                    defaults=getattr(options, 'DEFAULTS', None))
        except Exception as error:
            self.problem = str(error)

    @property
    def database_url(self):
        """The SQLAlchemy URL of its database."""
        return self.conf.database.connection or f'sqlite:///{self.conf.state_path}/{self.name}/{self.name}.sqlite'

    @contextlib.contextmanager
    def database(self):
        """Its database, opened with the rights of its owner, so that root leaves no files there that the service
        cannot write. :raises FileNotFoundError: an SQLite file that does not exist (it is not made)."""
        database = Database(self.database_url, pool_size=1)
        path = database.url.database if database.sqlite else None
        if path and not os.path.exists(path):
            raise FileNotFoundError(f'{path} does not exist')
        with _as_owner_of(path):
            try:
                yield database
            finally:
                database.close()

    @property
    def api_address(self):
        """(host, port) at which its API can be asked from here; None without a port."""
        if self.conf.api.bind_port is None:
            return None
        host = self.conf.api.bind_host
        return ('127.0.0.1' if host in {'0.0.0.0', '::', ''} else host), self.conf.api.bind_port

    def api_health(self):
        """(True, '') if the API says that it is ready, else (False, why not)."""
        try:
            status, body = ask(http.client.HTTPConnection(*self.api_address, timeout=5), '/healthcheck')
        except (OSError, http.client.HTTPException) as error:
            return False, f'nothing answers on port {self.api_address[1]} ({error})'
        return status == 200, '' if status == 200 else body.decode(errors='replace').strip()

    def events(self):
        """The files of events of its processes on this host, oldest first."""
        return sorted(glob.glob(os.path.join(self.conf.state_path, self.name, 'events', '*.jsonl*')), reverse=True)


def services(folder=None):
    """Every service with a file in the configuration folder, by name."""
    folder = folder or os.environ.get('KODIAK_CONFIG_DIR', DEFAULT_FOLDER)
    return [Service(path) for path in sorted(glob.glob(os.path.join(folder, '*.conf')))]


def ask(connection, path):
    """GET over an ``http.client`` connection. :returns: (status, body)."""
    try:
        connection.request('GET', path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost', timeout=5)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def workers(run_path):
    """What the status sockets of this host's workers say: ``{binary: answer of /healthcheck, or the error}``."""
    found = {}
    for path in sorted(glob.glob(os.path.join(run_path, '*.status'))):
        binary = os.path.basename(path).removesuffix('.status')
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            continue
        try:
            found[binary] = orjson.loads(ask(_Unix(path), '/healthcheck')[1])
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
            found[binary] = error
    return found


@contextlib.contextmanager
def _as_owner_of(path):
    if path is None or os.geteuid() != 0:
        yield
        return
    owner = os.stat(path)
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
