"""Prometheus metrics. Counting costs a few microseconds; what must be looked up is looked up when scraped.

With several processes under one port (the API workers) prometheus_client keeps its values in files of the
folder ``PROMETHEUS_MULTIPROC_DIR``, which :mod:`kodiak.common.service` sets before the first value is counted.
"""
import logging
import os
import threading

LOG = logging.getLogger(__name__)

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# name -> (help, labels)
_HISTOGRAMS = {
    'kodiak_http_request_seconds': ('HTTP requests by route, method and status code', ('service', 'method', 'route', 'code')),
    'kodiak_rpc_seconds': ('RPCs sent (call, cast) and answered (serve)', ('side', 'table', 'name', 'outcome')),
    'kodiak_saga_step_seconds': ('Saga steps that ended, from their first attempt',
                                 ('saga', 'step', 'action', 'outcome')),
    'kodiak_reconcile_seconds': ('Runs of reconcilers for one key', ('reconciler', 'outcome')),
    'kodiak_outbox_seconds': ('Age of outbox messages when they were delivered or failed', ('topic', 'outcome')),
}
CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

_metrics = {}
_children = {}
_collected = {}
_values = {}
_lock = threading.Lock()


def _observe(name, labels, seconds):
    child = _children.get((name, labels))
    if child is None:
        import prometheus_client
        with _lock:
            if name not in _metrics:
                text, names = _HISTOGRAMS[name]
                _metrics[name] = prometheus_client.Histogram(name, text, names, buckets=_BUCKETS)
        child = _children[name, labels] = _metrics[name].labels(*labels)
    child.observe(seconds)


def observe_request(service, method, route, code, seconds):
    """A request was answered. ``route``: the declared path, never the one with ids in it; ``code``: a string."""
    _observe('kodiak_http_request_seconds', (service, method, route, code), seconds)


def rpc(side, table, name, outcome, seconds):
    """An RPC ended. ``side``: call, cast or serve."""
    _observe('kodiak_rpc_seconds', (side, table, name, outcome), seconds)


def saga_step(saga, step, action, outcome, seconds):
    """A step of a saga ended."""
    _observe('kodiak_saga_step_seconds', (saga, step, action, outcome), seconds)


def reconciled(name, outcome, seconds):
    """A reconciler ran for one key."""
    _observe('kodiak_reconcile_seconds', (name, outcome), seconds)


def outbox(topic, outcome, seconds):
    """A message left the outbox, or failed to."""
    _observe('kodiak_outbox_seconds', (topic, outcome), seconds)


def collect(name, function, values=None):
    """Ask ``function()`` at each scrape: it yields ``(labels, count, age_of_the_oldest_in_seconds)``.

    :param name: what is counted (``sagas``): becomes ``kodiak_<name>`` and ``kodiak_<name>_oldest_seconds``. Several
        functions of one name give the same labels with different values.
    :param values: of a name whose functions yield other numbers after the labels: ``{end of the metric's name: what it tells}``,
        one for each number, the same for all functions of the name.
    """
    _collected.setdefault(name, []).append(function)
    _values[name] = values or {'': f'Unfinished {name}', '_oldest_seconds': f'Age of the oldest of {name}'}


def forget(name, function):
    """Undo :func:`collect`."""
    if function in _collected.get(name, ()):
        _collected[name].remove(function)


class _Looked:
    @staticmethod
    def collect():
        from prometheus_client import core
        for name, functions in list(_collected.items()):
            rows = []
            for function in list(functions):
                try:
                    rows += function()
                except Exception as error:
                    LOG.warning('The metrics of %s cannot be read now: %s', name, error)
            labels = list(rows[0][0]) if rows else []
            for place, (end, text) in enumerate(_values[name].items(), 1):
                gauge = core.GaugeMetricFamily(f'kodiak_{name}{end}', text, labels=labels)
                for row in rows:
                    gauge.add_metric(list(row[0].values()), row[place])
                yield gauge


def render():
    """The metrics of all processes under this port, as bytes of ``CONTENT_TYPE``."""
    import prometheus_client
    from prometheus_client import multiprocess
    if 'PROMETHEUS_MULTIPROC_DIR' in os.environ:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        text = prometheus_client.generate_latest(registry)
    else:
        text = prometheus_client.generate_latest(prometheus_client.REGISTRY)
    looked = prometheus_client.CollectorRegistry()
    looked.register(_Looked())
    return text + prometheus_client.generate_latest(looked)
