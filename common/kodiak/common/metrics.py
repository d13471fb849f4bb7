"""Prometheus metrics: what every process counts."""
import prometheus_client as prometheus

REQUESTS = prometheus.Counter('kodiak_http_requests', 'Requests answered.', ['service', 'method', 'route', 'code'])
LATENCY = prometheus.Histogram('kodiak_http_request_seconds', 'Time to an answer.', ['service', 'route'],
                               buckets=(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60))

_children = {}


def observe_request(service, method, route, code, seconds):
    """Count one request; ``route`` is the declared path, never the one with ids in it."""
    key = (service, method, route, code)
    found = _children.get(key)
    if found is None:
        found = _children[key] = (REQUESTS.labels(*key), LATENCY.labels(service, route))
    found[0].inc()
    found[1].observe(seconds)
