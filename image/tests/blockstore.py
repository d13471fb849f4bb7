"""A small server of the Cinder API for the tests of its store: volumes are files, attachments are NBD servers of QEMU."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid

from werkzeug.wrappers import Request, Response

from kodiak.common import testing

MISSING = shutil.which('qemu-nbd') is None


class Cinder:
    """Volumes of one project. ``fail``: ``function(request) -> status or None``. ``unit``: bytes of a GiB.

    What takes a while elsewhere is shown as under way once, and done then.
    """

    TOKEN = 'swift-token'

    def __init__(self, folder):
        self.folder = str(folder)
        self.unit = 1 << 30
        self.room = 100
        self.volumes, self.attachments, self.servers = {}, {}, {}
        self.fail = lambda request: None
        self.requests = []

    @Request.application
    def __call__(self, request):
        body = request.stream.read()
        path = request.path.removeprefix('/v1/AUTH_x')
        self.requests.append((request.method, path))
        status = self.fail(request) or (401 if request.headers.get('X-Auth-Token') != self.TOKEN else None)
        assert request.headers['OpenStack-API-Version'] == 'volume 3.54'
        if status:
            return Response(status=status)
        parts = path.strip('/').split('/')
        answer = getattr(self, f'_{request.method.lower()}_{parts[0]}')(request, parts[1:], json.loads(body or b'{}'))
        return Response(status=answer) if isinstance(answer, int) else Response(json.dumps(answer), content_type='application/json')

    def path(self, volume_id):
        """The file of a volume."""
        return os.path.join(self.folder, volume_id)

    def status(self, volume_id):
        """What a volume's attachments say that it is."""
        states = {one['status'] for one in self.attachments.values() if one['volume_id'] == volume_id}
        return 'in-use' if 'attached' in states else 'attaching' if states else 'available'

    def _post_volumes(self, request, parts, body):
        if len(parts) == 2 and parts[1] == 'metadata':
            self.volumes[parts[0]]['metadata'].update(body['metadata'])
            return {}
        if len(parts) == 2:
            return self._act(self.volumes[parts[0]], body)
        given = body['volume']
        if given['size'] > self.room:
            return 413
        volume = {'id': str(uuid.uuid4()), 'status': 'creating', 'metadata': {}, 'readonly': False, **given}
        self.volumes[volume['id']] = volume
        with open(self.path(volume['id']), 'wb') as file:
            file.truncate(given['size'] * self.unit)
        return {'volume': volume}

    def _act(self, volume, body):
        assert self.status(volume['id']) == 'available'
        if 'os-extend' in body:
            size = body['os-extend']['new_size']
            if size > self.room:
                return 413
            volume.update(size=size, status='extending')
            os.truncate(self.path(volume['id']), size * self.unit)
        else:
            volume['readonly'] = body['os-update_readonly_flag']['readonly']
        return 202

    def _get_volumes(self, request, parts, body):
        if parts == ['detail']:
            return {'volumes': [volume for volume in self.volumes.values() if volume['name'] == request.args['name']]}
        volume = self.volumes.get(parts[0])
        if volume is None:
            return 404
        shown = dict(volume)
        if volume['status'] == 'deleting':
            del self.volumes[parts[0]]
            os.unlink(self.path(parts[0]))
        elif volume['status'] in ('creating', 'extending', 'available', 'in-use'):
            volume['status'] = self.status(parts[0])
        return {'volume': shown}

    def _delete_volumes(self, request, parts, body):
        if parts[0] not in self.volumes:
            return 404
        if self.volumes[parts[0]]['status'] in ('creating', 'deleting') or self.status(parts[0]) != 'available':
            return 400
        self.volumes[parts[0]]['status'] = 'deleting'
        return 202

    def _get_attachments(self, request, parts, body):
        return {'attachments': [one for one in self.attachments.values() if one['volume_id'] == request.args['volume_id']]}

    def _post_attachments(self, request, parts, body):
        if parts:
            assert body == {'os-complete': {}}
            self.attachments[parts[0]]['status'] = 'attached'
            return 204
        given = body['attachment']
        volume = self.volumes.get(given['volume_uuid'])
        if volume is None:
            return 404
        others = [one for one in self.attachments.values() if one['volume_id'] == volume['id']]
        if (volume['readonly'] and given['mode'] == 'rw') or any(one['instance'] != given['instance_uuid'] for one in others):
            return 400
        made = {'id': str(uuid.uuid4()), 'volume_id': volume['id'], 'instance': given['instance_uuid'], 'mode': given['mode'],
                'status': 'reserved'}
        self.attachments[made['id']] = made
        return {'attachment': made}

    def _put_attachments(self, request, parts, body):
        one = self.attachments[parts[0]]
        assert body['attachment']['connector']['host']
        port = testing.free_port()
        server = self.servers[one['id']] = subprocess.Popen(
            ['qemu-nbd', '--persistent', '--bind=127.0.0.1', f'--port={port}', '--export-name=it', '--format=raw',
             *(['--read-only'] if one['mode'] == 'ro' else []), self.path(one['volume_id'])], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while server.poll() is None and time.monotonic() < end:
            with socket.socket() as trial:
                if trial.connect_ex(('127.0.0.1', port)) == 0:
                    break
            time.sleep(0.005)
        return {'attachment': {**one, 'connection_info': {
            'driver_volume_type': 'nbd', 'host': '127.0.0.1', 'port': port, 'export': 'it', 'tls': False, 'encrypted': False}}}

    def _delete_attachments(self, request, parts, body):
        if parts[0] not in self.attachments:
            return 404
        self.end(parts[0])
        del self.attachments[parts[0]]
        return {'attachments': []}

    def end(self, attachment_id):
        """End what an attachment is reached by."""
        server = self.servers.pop(attachment_id, None)
        if server is not None:
            server.kill()
            server.wait()

    def close(self):
        """End everything."""
        for attachment_id in list(self.servers):
            self.end(attachment_id)


@contextlib.contextmanager
def running(folder):
    """A :class:`Cinder` with its volumes in a new folder below ``folder``; ``root`` is its URL."""
    os.mkdir(os.path.join(folder, 'volumes'))
    made = Cinder(os.path.join(folder, 'volumes'))
    try:
        with testing.serving(made) as made.root:
            yield made
    finally:
        made.close()
