"""A RabbitMQ node of the tests' own, on its own ports, as the user rabbitmq."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest


class Rabbit:
    """``start()``, ``stop()``, ``kill()``, ``url``; ``wipe()`` empties it between a stop and a start."""

    def __init__(self, port=5691, dist=25691, epmd=43691):
        self.port = port
        self.url = f'rabbit://guest:guest@127.0.0.1:{port}/'
        self.folder = tempfile.mkdtemp(prefix='kodiak-rabbit-')
        os.chmod(self.folder, 0o755)
        for name in ('mnesia', 'log', 'home'):
            os.mkdir(os.path.join(self.folder, name))
        self.node = f'kodiak{port}@localhost'
        self.environment = {
            **os.environ, 'RABBITMQ_NODENAME': self.node, 'RABBITMQ_NODE_PORT': str(port), 'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
            'RABBITMQ_DIST_PORT': str(dist), 'RABBITMQ_MNESIA_BASE': self.folder + '/mnesia',
            'RABBITMQ_LOG_BASE': self.folder + '/log', 'RABBITMQ_PID_FILE': self.folder + '/pid', 'ERL_EPMD_PORT': str(epmd),
            'HOME': self.folder + '/home', 'RABBITMQ_CONF_ENV_FILE': '/dev/null',
            'RABBITMQ_ENABLED_PLUGINS_FILE': self.folder + '/plugins', 'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '+S 2:2'}
        with open(self.folder + '/plugins', 'w') as file:
            file.write('[].')
        self._user = ['setpriv', '--reuid=rabbitmq', '--regid=rabbitmq', '--clear-groups'] if os.geteuid() == 0 else []
        if self._user:
            subprocess.run(['chown', '-R', 'rabbitmq:rabbitmq', self.folder], check=True)
        self.process = None

    def start(self):
        """Start and wait until it takes connections."""
        self.process = subprocess.Popen([*self._user, 'rabbitmq-server'], env=self.environment, cwd=self.folder,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.time() + 60
        while time.time() < deadline:
            try:
                with socket.create_connection(('127.0.0.1', self.port), 1) as connection:
                    connection.sendall(b'AMQP\x00\x00\x09\x01')
                    if connection.recv(8):
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError('RabbitMQ did not start; see ' + self.folder)

    def stop(self):
        """Kill it and wait until its port is free."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        while True:
            try:
                socket.create_connection(('127.0.0.1', self.port), 1).close()
                time.sleep(0.05)
            except OSError:
                return

    def wipe(self):
        """Forget every queue and exchange (while stopped)."""
        shutil.rmtree(self.folder + '/mnesia')
        os.mkdir(self.folder + '/mnesia')
        if self._user:
            subprocess.run(['chown', 'rabbitmq:rabbitmq', self.folder + '/mnesia'], check=True)

    def close(self):
        """Stop and remove its folder and its name server."""
        self.stop()
        subprocess.run(['epmd', '-kill'], env=self.environment, check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope='module')
def broker():
    """A :class:`Rabbit` that runs."""
    node = Rabbit()
    try:
        node.start()
        yield node
    finally:
        node.close()
