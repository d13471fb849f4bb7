"""What objects cost to put and to get, how fast large ones go, and what the listing of a large container costs.

Three replicas of each, all on loopback, on four devices.
"""
import os
import statistics
import subprocess
import tempfile
import time

import measure

MEGABYTES, LISTED = 64, 10000
SMALL = os.urandom(4096)


def bench(target, recorder):
    """Measure one implementation."""
    base, of = '/AUTH_' + target.info['project']['id'], ('storage-object', 'identity')
    tag = f'{time.time_ns():x}'

    def put(path, body=b''):
        return target.raw('PUT', 'storage-object', base + path, body)

    def get(path):
        return target.raw('GET', 'storage-object', base + path)[2]
    for container in ('small', 'large', 'listed'):
        put('/' + container)
    for what, clients in (('object PUT, 4 KiB', 1), ('object PUT, 4 KiB, 8 clients', 8)):
        measure.run(recorder, target, what, of, lambda n, clients=clients: put(f'/small/{tag}-{clients}-{n}', SMALL),
                    seconds=6.0, clients=clients)
    measure.together(lambda n: put(f'/small/read-{n:03}', SMALL), range(500), 4)
    for what, clients in (('object GET, 4 KiB', 1), ('object GET, 4 KiB, 8 clients', 8)):
        measure.run(recorder, target, what, of, lambda n: get(f'/small/read-{n % 500:03}'), clients=clients)
    _transfer(target, recorder, f'{base}/large/{tag}-', of)
    have = get('/listed?limit=10000').count(b'\n')
    measure.together(lambda n: put(f'/listed/object-{n:06}'), range(have, LISTED), 8)
    measure.until(lambda: get('/listed?limit=10000').count(b'\n') >= LISTED, 600, 1)
    for what, query in (('listing of 10,000, JSON', '&format=json'), ('listing of 10,000, plain', '')):
        measure.run(recorder, target, what, of, lambda _, query=query: get('/listed?limit=10000' + query))
    measure.run(recorder, target, 'listing of 100, JSON', of, lambda _: get('/listed?limit=100&format=json'))


def _transfer(target, recorder, path, of):
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile('w') as headers:
        file.write(os.urandom(MEGABYTES << 20))
        file.flush()
        # The token goes in by a file: a command line is everybody's to read.
        headers.write(f'X-Auth-Token: {target.token}\nExpect:\n')
        headers.flush()

        def curl(*words):
            began = time.perf_counter()
            subprocess.run(['curl', '-sS', '-f', '-o', '/dev/null', '-H', '@' + headers.name, *words], check=True)
            return MEGABYTES / (time.perf_counter() - began)
        # None is written over another: where the file system tells the disk at once what became free, a PUT would wait for that.
        urls = [f'{target.urls["storage-object"]}{path}{number}' for number in range(13)]
        for what, words in (('object PUT, 64 MB', ['-T', file.name]), ('object GET, 64 MB', [])):
            # The first finds everything cold.
            curl(*words, urls[0])
            cpu = target.cpu(*of)
            speeds = [curl(*words, url) for url in urls[1:]]
            recorder.add(target, what, mb_s=statistics.median(speeds), best_mb_s=max(speeds),
                         cpu_ms=(target.cpu(*of) - cpu) * 1000 / len(speeds))
        for url in urls:
            curl('-X', 'DELETE', url)
