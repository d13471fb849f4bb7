"""What daemons ask of the whole cluster: listings and deletions, past accounts and containers that are deleted; and those daemons
that work off what others queue.
"""
import logging
import time

import orjson

from ..backend.containers import deletion
from ..proxy import backend as wire
from ..proxy.app import Proxy
from ..proxy.http import Fault
from ..proxy.listing import encode
from .care import Daemon

LOG = logging.getLogger(__name__)


class Unknown(Exception):
    """No server could tell."""


class Inside:
    """The proxy's own ways to all replicas, without its requests.

    :param server: the :class:`~kodiak.storage_object.backend.app.Server`.
    """

    def __init__(self, server):
        self.server = server
        self.proxy = Proxy(server.rings)
        self.client = self.proxy.client

    def rows(self, account, container=None, **query):
        """``(rows, headers)`` of a listing's page from the first server that has it; None if there is none.

        Raises :class:`Unknown` where too few servers answer to say so.
        """
        try:
            if container is not None:
                return self.proxy.shards.rows(account, container, {'limit': '10000', **query})
        except Fault:
            raise Unknown(f'/{account}/{container}') from None
        ring = self.server.rings.account
        part = ring.get_part(account)
        missing = wire.Absences(ring, part)
        for node in ring.primaries(part):
            answer = self.client.ask(node, 'GET', part, f'/{account}', {}, encode(query))
            if answer is None:
                continue
            try:
                body = answer.read()
            except wire.ERRORS:
                continue
            if answer.status == 200:
                return orjson.loads(body), answer.headers
            if answer.status == 404:
                missing.add(node)
        if not missing.certain:
            raise Unknown(account)
        return None

    def policy(self, account, container):
        """The policy of a container; None if there is no such container."""
        found = self.rows(account, container, limit='1')
        return int(found[1].get('X-Backend-Storage-Policy-Index', '0')) if found else None

    def delete_object(self, account, container, name, policy, **headers):
        """Delete an object everywhere. Returns the status."""
        common = {key.replace('_', '-'): value for key, value in headers.items()}
        return self.proxy.objects._all('DELETE', account, container, name, policy, common).status

    def delete_container(self, account, container):
        """Delete a container everywhere. Returns the status."""
        ring, above = self.server.rings.container, self.server.rings.account
        part, above_part = ring.get_part(account, container), above.get_part(account)
        nodes = above.primaries(above_part)
        headers = {'X-Timestamp': f'{time.time():016.5f}', 'Content-Length': '0', 'X-Account-Partition': str(above_part),
                   'X-Account-Host': ','.join(f'{node["ip"]}:{node["port"]}' for node in nodes),
                   'X-Account-Device': ','.join(node['device'] for node in nodes)}
        replicas = wire.ring_replicas(ring)
        answers = self.client.ask_many(ring, part, 'DELETE', f'/{account}/{container}', [headers] * replicas)
        return self.proxy.containers.best(answers, replicas).status

    def rank(self, ring, part):
        """The place of this node among the devices of a partition; None if it has none of them."""
        for place, node in enumerate(ring.primaries(part)):
            if (node['ip'], node['port']) in self.server.local:
                return place
        return None


class Queues(Daemon):
    """Works off the entries of containers of an account, each named by the first second that it is of.

    The node of a queue's first replica does; the others begin later, in case it is out.
    """

    account = ''
    span = 0            # seconds that a queue is of

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self.inside = Inside(server)

    def entry(self, queue, row, until):
        """Do what a row of a queue asks for; whether it is done. :class:`Later`: neither this nor what follows is due.

        :param until: a time: what is later is not this node's yet.
        """
        raise NotImplementedError

    def due(self):
        """What more is asked of the account's listing: those queues whose time has come."""
        return {}

    def once(self):
        """A pass over the queues."""
        try:
            queues = self.inside.rows(self.account, limit='10000', **self.due())
        except Unknown:
            return
        ring = self.server.rings.container
        for queue in self.fresh([row['name'] for row in queues[0]] if queues else []):
            rank = self.inside.rank(ring, ring.get_part(self.account, queue))
            if rank is not None:
                try:
                    self._queue(queue, time.time() - 2 * rank * self.conf.storage.interval)
                except Later:
                    pass
                except Unknown as error:
                    LOG.info('The queue %s has to wait: %s', queue, error)

    def _queue(self, queue, until):
        marker, left = '', False
        while page := (self.inside.rows(self.account, queue, limit='1000', marker=marker) or ([],))[0]:
            for row in page:
                marker = row['name']
                if self.ending.is_set():
                    return
                left |= not self.entry(queue, row, until)
        if not left and int(queue) < time.time() - 2 * self.span:
            self.inside.delete_container(self.account, queue)

    def strike(self, queue, name, stamp):
        """Delete an entry as of a timestamp; whether enough servers know of it."""
        return self.server.updater.send_row(self.account, queue, deletion(name, stamp, 0))


class Later(Exception):
    """The rest of a queue is not due yet."""
