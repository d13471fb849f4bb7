"""What the object store's everyday requests cost, and how fast data goes in and out.

The target's ``object`` URL ends in ``AUTH_``.
"""
import os
import subprocess
import tempfile
import time

import measure

MEGABYTES = 64
ROWS = 10_000


def bench(target, recorder):
    """Measure one implementation."""
    account = target.info['project']['id']
    small = os.urandom(4096)
    binary = {'Content-Type': 'application/octet-stream'}
    of = ('object', 'storage-object', 'identity')

    def put(path, body=b''):
        return target.raw('PUT', 'object', f'{account}/{path}', body, binary)

    for name in ('small', 'large', 'many'):
        put(name)
    measure.run(recorder, target, 'object put, 4 KiB', of, lambda number: put(f'small/o{number}', small))
    measure.run(recorder, target, 'object put, 4 KiB, 8 clients', of, lambda number: put(f'small/p{number}', small), clients=8)
    measure.together(lambda number: put(f'small/g{number}', small), range(500))
    for clients in (1, 8):
        measure.run(recorder, target, 'object get, 4 KiB' + (f', {clients} clients' if clients > 1 else ''), of,
                    lambda number: target.raw('GET', 'object', f'{account}/small/g{number % 500}'), clients=clients)
    _transfer(target, recorder, account)
    measure.together(lambda number: put(f'many/obj-{number:06}'), range(ROWS))
    measure.until(lambda: len(target.raw('GET', 'object', f'{account}/many?limit={ROWS}')[2].split()) == ROWS)
    measure.run(recorder, target, 'objects, 10,000, JSON', of,
                lambda _: target.raw('GET', 'object', f'{account}/many?limit={ROWS}&format=json'))
    measure.run(recorder, target, 'objects, 10,000, plain', of,
                lambda _: target.raw('GET', 'object', f'{account}/many?limit={ROWS}'))


def _transfer(target, recorder, account):
    up, down = [], []
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile('w') as headers:
        file.write(os.urandom(MEGABYTES << 20))
        file.flush()
        # The token goes in by a file: a command line is everybody's to read.
        headers.write(f'X-Auth-Token: {target.token}\nContent-Type: application/octet-stream\nExpect:\n')
        headers.flush()
        for number in range(6):
            url = f'{target.urls["object"]}{account}/large/o{number}'
            for _ in range(2):
                command = ['curl', '-sS', '-f', '-o', '/dev/null', '-H', '@' + headers.name]
                began = time.perf_counter()
                subprocess.run([*command, '-T', file.name, url], check=True)
                up.append(MEGABYTES / (time.perf_counter() - began))
                began = time.perf_counter()
                subprocess.run([*command, url], check=True)
                down.append(MEGABYTES / (time.perf_counter() - began))
    recorder.add(target, 'object put, 64 MB', mb_s=sorted(up)[len(up) // 2])
    recorder.add(target, 'object get, 64 MB', mb_s=sorted(down)[len(down) // 2])
