"""The files of a DHCP service, and its leases, which outlive restarts.

dnsmasq does not give an address to a new MAC while its lease file says that another one holds it. Addresses of
deleted ports come back soon, so a lease whose holder changed is taken out of the file while dnsmasq is stopped.
"""
import contextlib
import json
import os
import stat
import tempfile

from kodiak.network.agent.dhcp import FILES


def _read(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except FileNotFoundError:
        return ''


def _write(path, text):
    """Replace a file as a whole; others may read it."""
    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(prefix='.' + name, dir=folder)
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _passable(path):
    """Let other users pass through the folders of the agent that lead to a path: dnsmasq reads its files as another user."""
    for folder in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        found = os.stat(folder)
        if found.st_uid == os.geteuid() and not found.st_mode & stat.S_IXOTH:
            os.chmod(folder, stat.S_IMODE(found.st_mode) | stat.S_IXGRP | stat.S_IXOTH)    # noqa: S103


class Folder:
    """The files of one network's service."""

    def __init__(self, path):
        self.path = path

    def _file(self, name):
        return os.path.join(self.path, name)

    def applied(self):
        """The content (``Service.content``) that the running process has read, or ''."""
        return _read(self._file('applied'))

    def note_applied(self, content):
        """Remember what the process has read, for whoever comes after this agent."""
        _write(self._file('applied'), content)

    def write(self, service):
        """Write the files that dnsmasq reads again on SIGHUP."""
        os.makedirs(self.path, mode=0o755, exist_ok=True)
        os.chmod(self.path, 0o755)      # noqa: S103
        _passable(self.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file('applied'))
        for name in FILES:
            if not os.path.exists(self._file(name)) or _read(self._file(name)) != service.files[name]:
                _write(self._file(name), service.files[name])

    def _holders(self):
        text = _read(self._file('holders'))
        try:
            return json.loads(text) if text else {}
        except ValueError:
            return {}

    def _leased(self):
        """The lease lines with their address, or None for lines that are no lease."""
        for line in _read(self._file('leases')).splitlines():
            words = line.split()
            yield line, words[2] if len(words) >= 4 else None

    def stale(self, service):
        """Leased addresses that now belong to another MAC address."""
        holders = self._holders()
        return {address for _, address in self._leased()
                if address in service.mac_of and holders.get(address, service.mac_of[address]) != service.mac_of[address]}

    def prune(self, service):
        """Take the stale leases out; only while dnsmasq is stopped."""
        stale = self.stale(service)
        if stale:
            kept = [line for line, address in self._leased() if address not in stale]
            _write(self._file('leases'), ''.join(line + '\n' for line in kept))

    def note_holders(self, service):
        """Remember whom the addresses belong to, those of gone ports too while they are leased."""
        leased = {address for _, address in self._leased()}
        holders = {address: mac for address, mac in self._holders().items() if address in leased}
        holders.update(service.mac_of)
        text = json.dumps(holders, sort_keys=True)
        if text != _read(self._file('holders')):
            _write(self._file('holders'), text)

    def remove(self):
        """Delete the folder."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._file(name))
            os.rmdir(self.path)
