"""What servers cost: to show, to list, to boot. The hosts are fake, the servers have no network."""
import statistics
import time

import measure


def _prepare(target):
    target.call('PUT', 'compute', '/os-quota-sets/' + target.info['project']['id'], {
        'quota_set': {'instances': -1, 'cores': -1, 'ram': -1}})
    measure.until(lambda: any(host['state'] == 'up' for host in target.call('GET', 'compute', '/os-hypervisors')['hypervisors']),
                  60, 0.5)
    images = [image for image in target.call('GET', 'image', '/v2/images?name=compute-bench')['images']
              if image['status'] == 'active']
    if not images:
        image = target.call('POST', 'image', '/v2/images', {
            'name': 'compute-bench', 'disk_format': 'raw', 'container_format': 'bare', 'visibility': 'public'})
        target.raw('PUT', 'image', f'/v2/images/{image["id"]}/file', b'x' * 1024, {'Content-Type': 'application/octet-stream'})
        images = [image]
    flavors = [flavor for flavor in target.call('GET', 'compute', '/flavors')['flavors'] if flavor['name'] == 'bench']
    flavor = flavors[0] if flavors else target.call('POST', 'compute', '/flavors', {
        'flavor': {'name': 'bench', 'vcpus': 1, 'ram': 16, 'disk': 1}})['flavor']
    return images[0]['id'], flavor['id']


def bench(target, recorder, servers=1000):
    """Measure one implementation."""
    image, flavor = _prepare(target)
    of = ('compute', 'placement', 'image', 'identity')

    def boot(name, **more):
        return target.call('POST', 'compute', '/servers', {'server': {
            'name': name, 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', **more}})['server']['id']

    def active(server):
        shown = target.call('GET', 'compute', '/servers/' + server)['server']
        if shown['status'] == 'ERROR':
            raise measure.Fault(str(shown.get('fault')))
        return shown['status'] == 'ACTIVE'

    def count(prefix):
        return len(target.call('GET', 'compute', f'/servers?name={prefix}&status=ACTIVE&limit=1000')['servers'])
    measure.run(recorder, target, 'flavors detail', of, lambda _: target.raw('GET', 'compute', '/flavors/detail'))
    _one_by_one(target, recorder, of, boot, active)
    _at_once(target, recorder, of, boot, count)
    have = len(target.call('GET', 'compute', '/servers?limit=1000')['servers'])
    while have < servers:
        more = min(50, servers - have)
        boot('fill', min_count=more, max_count=more)
        have += more
    measure.until(lambda: len(target.call('GET', 'compute', '/servers?status=ACTIVE&limit=1000')['servers']) >= servers, 1200, 1)
    for what, path in (('servers, 1,000', '/servers?limit=1000'), ('servers detail, 100', '/servers/detail?limit=100'),
                       ('servers detail, 1,000', '/servers/detail?limit=1000')):
        measure.run(recorder, target, what, of, lambda _, path=path: target.raw('GET', 'compute', path))
    one = target.call('GET', 'compute', '/servers?limit=1')['servers'][0]['id']
    measure.run(recorder, target, 'server show', of, lambda _: target.raw('GET', 'compute', '/servers/' + one))


def _one_by_one(target, recorder, of, boot, active):
    posts, totals = [], []
    boot('warm')
    time.sleep(2)
    cpu = target.cpu(*of)
    asked = 0
    for number in range(9):
        began = time.perf_counter()
        server = boot(f'one-{number}')
        posts.append(time.perf_counter() - began)
        while not active(server):
            asked += 1
            time.sleep(0.05)
        totals.append(time.perf_counter() - began)
    recorder.add(target, 'one boot', cpu_ms=(target.cpu(*of) - cpu) * 1000 / 9, post_ms=statistics.median(posts) * 1000,
                 active_ms=statistics.median(totals) * 1000, polls=asked)


def _at_once(target, recorder, of, boot, count):
    prefix, cpu, began = f'burst-{time.time():.0f}-', target.cpu(*of), time.perf_counter()
    measure.together(lambda n: boot(prefix + str(n)), range(50), 8)
    while count(prefix) < 50:
        # Asking costs both of them something, and asking seldom blurs what is quick: twenty times in all.
        time.sleep(min(0.25, (time.perf_counter() - began) / 20))
    elapsed = time.perf_counter() - began
    recorder.add(target, '50 boots at once', cpu_ms=(target.cpu(*of) - cpu) * 1000 / 50, a_minute=50 / elapsed * 60)
