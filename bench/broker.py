"""The message broker of a measurement. A cloud that runs on the machine never meets what is measured: a host that a benchmark
registers would be given servers, and be gone when they are to start."""
import configparser
import contextlib
import subprocess
import urllib.parse

VHOST = 'kodiak-bench'


def _control(*command):
    done = subprocess.run(['rabbitmqctl', '-q', *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f'rabbitmqctl {" ".join(command)}: {done.stdout.strip()} {done.stderr.strip()}\n'
                         'Run this by root on the machine of the broker, or name a broker with --transport-url.')


@contextlib.contextmanager
def transport(url=None):
    """The URL of a broker for the length of a block.

    :param url: where a broker is that nothing else uses. None: the broker of this machine's installation, by its configuration,
        with a virtual host of its own, which goes again with all that is in it.
    """
    if url:
        yield url
        return
    conf = configparser.ConfigParser(interpolation=None, strict=False)
    conf.read('/etc/kodiak/compute.conf')
    installed = conf.get('DEFAULT', 'transport_url', fallback=None)
    if not installed:
        raise SystemExit('No broker: name one with --transport-url rabbit://USER:PASSWORD@HOST:PORT/VHOST.')
    parts = urllib.parse.urlsplit(installed)
    _control('add_vhost', VHOST)
    try:
        _control('set_permissions', '-p', VHOST, parts.username, '.*', '.*', '.*')
        yield parts._replace(path='/' + VHOST).geturl()
    finally:
        _control('delete_vhost', VHOST)
