"""An agent process for the tests: the real agent and driver, with sockets in place of the broker and files in place of images.

Run as ``python agent_process.py FOLDER``; FOLDER holds ``conductor.sock`` (the test listens) and ``images/``; the agent
answers on ``agent.sock``.
"""
import base64
import json
import logging
import os
import signal
import socketserver
import sys
import threading

from oslo_config import cfg

from kodiak.common import errors
from kodiak.compute import rpc
from kodiak.compute.agent import main as agents
from kodiak.compute.agent.conf import OPTS
from kodiak.compute.drivers.libvirt.driver import LibvirtDriver


def ask(path, name, args):
    """One question over a Unix socket."""
    import socket
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        with connection.makefile('rwb') as stream:
            stream.write(json.dumps([name, args]).encode() + b'\n')
            stream.flush()
            answer = json.loads(stream.readline())
    if 'error' in answer:
        raise errors.Error(answer['error'])
    return answer['result']


def serve(path, handlers):
    """Answer questions on a Unix socket."""
    if os.path.exists(path):
        os.unlink(path)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            name, args = json.loads(self.rfile.readline())
            try:
                answer = {'result': getattr(handlers, name)(None, **args)}
            except errors.Error as error:
                answer = {'error': error.message}
            self.wfile.write(json.dumps(answer).encode() + b'\n')

    server = socketserver.ThreadingUnixStreamServer(path, Handler)
    server.daemon_threads = True
    os.chmod(path, 0o666)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Bus:
    """As much of kodiak.common.rpc.Bus as an agent needs."""

    def __init__(self, path):
        self.path = path

    def client(self, table, topic):
        class Client:
            def call(_self, name, context=None, **args):
                table.entry('calls', name, args)
                return ask(self.path, name, args)
        return Client()


class Images:
    """Images are files; ``slow`` in the folder makes uploads take long enough to be killed in."""

    def __init__(self, folder):
        self.folder = folder

    def download(self, image_id):
        with open(os.path.join(self.folder, image_id), 'rb') as file:
            while data := file.read(1 << 20):
                yield data

    def upload(self, image_id, file, size, disk_format):
        with open(os.path.join(self.folder, image_id + '.part'), 'wb') as out:
            while data := file.read(1 << 20):
                out.write(data)
        os.replace(out.name, os.path.join(self.folder, image_id))


class Keys:
    """Keys of volumes are files."""

    def __init__(self, folder):
        self.folder = folder

    def passphrase(self, volume_id):
        with open(os.path.join(self.folder, volume_id), 'rb') as file:
            return base64.b64decode(file.read())


def main(folder, host):
    logging.basicConfig(level=logging.INFO, filename=os.path.join(folder, 'agent.log'),
                        format='%(asctime)s %(name)s %(message)s')
    os.umask(0o027)
    conf = cfg.ConfigOpts()
    conf.register_opts(OPTS['agent'], group='agent')
    conf.register_opts([cfg.StrOpt('state_path', default=folder), cfg.StrOpt('host', default=host)])
    conf([])
    conf.set_override('port', 0, 'agent')
    conf.set_override('virt_type', os.environ.get('KODIAK_TEST_VIRT_TYPE', 'auto'), 'agent')
    agent = agents.Agent(conf, Bus(os.path.join(folder, 'conductor.sock')),
                         [LibvirtDriver(conf, host, Images(os.path.join(folder, 'images')), Keys(os.path.join(folder, 'keys')))])
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    agent.start()
    serve(os.path.join(folder, 'agent.sock'), agents.Handlers(agent))
    done.wait()
    agent.stop()


if __name__ == '__main__':
    assert rpc.AGENT.calls
    main(*sys.argv[1:])
