"""What image's everyday requests cost, and how fast data goes in and out."""
import os
import subprocess
import tempfile
import time

import measure

MEGABYTES = 256


def bench(target, recorder):
    """Measure one implementation."""
    have, path = 0, '/v2/images?limit=1000'
    while path:
        answer = target.call('GET', 'image', path)
        have, path = have + len(answer['images']), answer.get('next')
    measure.together(lambda n: target.call('POST', 'image', '/v2/images', {
        'name': f'bench-{n:05}', 'disk_format': 'raw', 'container_format': 'bare', 'visibility': 'public', 'os_distro': 'x',
        'tags': ['a', 'b']}), range(have, 1000), 2)
    of = ('image', 'identity')
    first = target.call('GET', 'image', '/v2/images?limit=1')['images'][0]['id']
    measure.run(recorder, target, 'image show', of, lambda _: target.raw('GET', 'image', '/v2/images/' + first))
    measure.run(recorder, target, 'images, 25', of, lambda _: target.raw('GET', 'image', '/v2/images'))
    measure.run(recorder, target, 'images, 100', of, lambda _: target.raw('GET', 'image', '/v2/images?limit=100'))
    with tempfile.NamedTemporaryFile() as file:
        block = os.urandom(1 << 20)
        for _ in range(MEGABYTES):
            file.write(block)
        file.flush()
        _transfer(target, recorder, file.name)


def _transfer(target, recorder, path):
    up, down = [], []
    for number in range(4):
        image = target.call('POST', 'image', '/v2/images', {
            'name': f'up-{number}', 'disk_format': 'raw', 'container_format': 'bare'})['id']
        url = f'{target.urls["image"]}/v2/images/{image}/file'
        # The token goes in by a file: a command line is everybody's to read.
        with tempfile.NamedTemporaryFile('w') as headers:
            headers.write(f'X-Auth-Token: {target.token}\nContent-Type: application/octet-stream\nExpect:\n')
            headers.flush()
            began = time.perf_counter()
            subprocess.run(['curl', '-sS', '-f', '-o', '/dev/null', '-T', path, '-H', '@' + headers.name, url], check=True)
            up.append(MEGABYTES / (time.perf_counter() - began))
            for _ in range(2):
                began = time.perf_counter()
                subprocess.run(['curl', '-sS', '-f', '-o', '/dev/null', '-H', '@' + headers.name, url], check=True)
                down.append(MEGABYTES / (time.perf_counter() - began))
        target.call('DELETE', 'image', '/v2/images/' + image)
    recorder.add(target, 'image upload, 256 MB', mb_s=sorted(up)[len(up) // 2])
    recorder.add(target, 'image download, 256 MB', mb_s=sorted(down)[len(down) // 2])
