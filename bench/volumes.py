"""What volumes cost: to make, to show, to list. The back end keeps sparse files; nothing is attached."""
import statistics
import time

import measure

ALONE, TOGETHER = 15, 50


def bench(target, recorder, volumes=1000):
    """Measure one implementation."""
    base, of = '/' + target.info['project']['id'], ('storage-block', 'identity')
    target.call('PUT', 'storage-block', f'{base}/os-quota-sets/{target.info["project"]["id"]}', {
        'quota_set': {'volumes': -1, 'gigabytes': -1}})
    if not any(kind['name'] == 'bench' for kind in target.call('GET', 'storage-block', base + '/types')['volume_types']):
        target.call('POST', 'storage-block', base + '/types', {'volume_type': {'name': 'bench'}})

    def make(name):
        return target.call('POST', 'storage-block', base + '/volumes', {
            'volume': {'size': 1, 'name': name, 'volume_type': 'bench'}})['volume']['id']

    def available(volume):
        shown = target.call('GET', 'storage-block', f'{base}/volumes/{volume}')['volume']
        if shown['status'] == 'error':
            raise measure.Fault(f'the volume {volume} could not be made')
        return shown['status'] == 'available'

    def have(query):
        return len(target.call('GET', 'storage-block', f'{base}/volumes?limit=1000&{query}')['volumes'])
    measure.until(lambda: any(service['state'] == 'up' and service['binary'] == 'cinder-volume' for service in target.call(
        'GET', 'storage-block', base + '/os-services')['services']), 60, 0.5)
    _one_by_one(target, recorder, of, make, available)
    _at_once(target, recorder, of, make, have)
    measure.together(lambda number: make(f'fill-{number}'), range(volumes - have('')), 4)
    measure.until(lambda: have('status=available') >= volumes, 1200, 1)
    for what, path in (('volumes, 1,000', '/volumes?limit=1000'), ('volumes detail, 1,000', '/volumes/detail?limit=1000')):
        measure.run(recorder, target, what, of, lambda _, path=path: target.raw('GET', 'storage-block', base + path))
    one = target.call('GET', 'storage-block', base + '/volumes?limit=1')['volumes'][0]['id']
    measure.run(recorder, target, 'volume show', of, lambda _: target.raw('GET', 'storage-block', f'{base}/volumes/{one}'))


def _one_by_one(target, recorder, of, make, available):
    posts, totals = [], []
    measure.until(lambda volume=make('warm'): available(volume), 60)
    for number in range(ALONE):
        began = time.perf_counter()
        volume = make(f'one-{number}')
        posts.append(time.perf_counter() - began)
        while not available(volume):
            time.sleep(0.01)
        totals.append(time.perf_counter() - began)
    # Asking whether it is there costs as much as making it, so the CPU is that of others, asked about once.
    cpu = target.cpu(*of)
    for number in range(ALONE):
        volume = make(f'cpu-{number}')
        time.sleep(0.25)
        measure.until(lambda volume=volume: available(volume), 60, 0.25)
    recorder.add(target, 'volume create', cpu_ms=(target.cpu(*of) - cpu) * 1000 / ALONE, post_ms=statistics.median(posts) * 1000,
                 available_ms=statistics.median(totals) * 1000, slowest_ms=max(totals) * 1000)


def _at_once(target, recorder, of, make, have):
    before, cpu, began = have('status=available'), target.cpu(*of), time.perf_counter()
    measure.together(lambda number: make(f'burst-{number}'), range(TOGETHER), 8)
    while have('status=available') < min(before + TOGETHER, 1000):
        time.sleep(min(0.25, (time.perf_counter() - began) / 10))
    elapsed = time.perf_counter() - began
    recorder.add(target, '50 volumes at once', cpu_ms=(target.cpu(*of) - cpu) * 1000 / TOGETHER, a_minute=TOGETHER / elapsed * 60)
