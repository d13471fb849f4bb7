"""What is installed on this host: the services that have a configuration file, their databases, sockets and servers."""
import contextlib
import glob
import http.client
import importlib
import importlib.util
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
        self._package = 'kodiak.' + self.name.replace('-', '_')
        try:
            options = importlib.import_module(self._package + '.conf')
        except ImportError:
            options = None
        #: binary -> (group, option of its address, option of its port)
        self._servers = getattr(options, 'SERVERS', {f'kodiak-{self.name}-api': ('api', 'bind_host', 'bind_port')})
        try:
            self.conf = config.load(self.name, getattr(options, 'OPTS', None), args=[], files=[path],
                                    defaults=getattr(options, 'DEFAULTS', None))
        except Exception as error:
            self.problem = str(error)

    @property
    def sections(self):
        """The names of the sections of its file."""
        with open(self.path, encoding='utf-8') as file:
            return {line.strip()[1:-1] for line in file if line.startswith('[') and line.strip().endswith(']')}

    @property
    def is_service(self):
        """False for a file that is no service's: it has another program's sections."""
        return bool(self.problem or _installed(self._package) or self.sections & {'DEFAULT', 'database', 'api'})

    @property
    def agent_only(self):
        """True on a host that runs nothing of the service but its agent: its file has a section for that, and names no
        database, nor is there one where it would be."""
        if not self.has_tables or 'agent' not in self.sections:
            return False
        named = self.conf.get_location('connection', 'database')
        return not ((named and named.location.is_user_controlled) or os.path.exists(self.database_url.removeprefix('sqlite:///')))

    @property
    def has_tables(self):
        """False for a service that keeps no rows in any database."""
        return not _installed(self._package) or _installed(self._package + '.models')

    @property
    def database_url(self):
        """The SQLAlchemy URL of its database."""
        return config.database_url(self.conf, self.name)

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

    def address_of(self, binary):
        """(host, port) at which a server of this host can be asked from here."""
        group, host, port = self._servers[binary]
        host = getattr(self.conf[group], host)
        return ('127.0.0.1' if host in {'0.0.0.0', '::', ''} else host), getattr(self.conf[group], port)

    def servers(self, known=()):
        """The servers that should answer on this host: ``{binary: (host, port)}``.

        All of them, unless the service has other processes here: then those that have run, or that are ``known`` to run, here.
        """
        ran = {binary for binary in self._servers if os.path.isdir(os.path.join(self.conf.run_path, binary + '.metrics'))}
        elsewhere = ran or self.agent_only or glob.glob(os.path.join(self.conf.run_path, f'kodiak-{self.name}-*.status'))
        found = {binary: self.address_of(binary) for binary in self._servers
                 if binary in ran or binary in known or not elsewhere}
        return {binary: address for binary, address in found.items() if address[1] is not None}

    def events(self):
        """The files of events of its processes on this host, oldest first."""
        return sorted(glob.glob(os.path.join(self.conf.state_path, self.name, 'events', '*.jsonl*')), reverse=True)


def services(folder=None):
    """Every service with a file in the configuration folder, by name."""
    folder = folder or os.environ.get('KODIAK_CONFIG_DIR', DEFAULT_FOLDER)
    found = [Service(path) for path in sorted(glob.glob(os.path.join(folder, '*.conf')))]
    return [service for service in found if service.is_service]


def _installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def health(address):
    """(True, '') if the server at an address says that it is ready, else (False, why not)."""
    try:
        status, body = ask(http.client.HTTPConnection(*address, timeout=5), '/healthcheck')
    except (OSError, http.client.HTTPException) as error:
        return False, f'nothing answers on port {address[1]} ({error})'
    return status == 200, '' if status == 200 else body.decode(errors='replace').strip()


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
