"""Connections to the servers of a directory, kept and used again; searches in pages."""
import contextlib
import logging
import queue
import threading
import time

import ldap3
from ldap3.core import exceptions, results

from kodiak.common import errors

LOG = logging.getLogger(__name__)
PAGED = '1.2.840.113556.1.4.319'
#: Results of an operation that say that the server cannot answer now.
AWAY = (results.RESULT_BUSY, results.RESULT_UNAVAILABLE, results.RESULT_UNWILLING_TO_PERFORM)


class Away(errors.Unavailable):
    """The directory does not answer, or not as it should; details are for the operator's log."""

    def __init__(self, why):
        LOG.warning('A directory cannot be used: %s', why)
        super().__init__('The directory of this domain does not answer. Try again, or tell the operator.')


class Refused(errors.Conflict):
    """The directory refuses a change."""


class _Held:
    __slots__ = ('connection', 'since')

    def __init__(self, connection):
        self.connection, self.since = connection, time.monotonic()


class Pool:
    """Connections to one directory, each used by one thread at a time.

    :param link: :class:`kodiak.identity.directory.settings.Link`. :param size: how many at most.
    :param lifetime: seconds after which one is not used again; 0: never twice.
    :param bound: True: log in as the account of the link; False: log nobody in, :meth:`check` does.
    """

    def __init__(self, link, size, lifetime, bound=True):
        self.link, self.lifetime, self.bound = link, lifetime, bound
        self._idle = queue.LifoQueue()
        self._free = threading.BoundedSemaphore(size)
        self._first = 0

    def close(self):
        """Close what is idle; what is in use is closed by its user."""
        self.lifetime = 0
        with contextlib.suppress(queue.Empty):
            while True:
                _close(self._idle.get_nowait().connection)

    @contextlib.contextmanager
    def connection(self):
        """An open connection, given back at the end, or closed where something went wrong on it."""
        if not self._free.acquire(timeout=self.link.timeout):
            raise Away('all connections are in use')
        try:
            held = self._take()
            try:
                yield held.connection
            except BaseException:
                _close(held.connection)
                raise
            if time.monotonic() - held.since < self.lifetime and not held.connection.closed:
                self._idle.put(held)
            else:
                _close(held.connection)
        finally:
            self._free.release()

    def _take(self):
        with contextlib.suppress(queue.Empty):
            while True:
                held = self._idle.get_nowait()
                if time.monotonic() - held.since < self.lifetime and not held.connection.closed:
                    return held
                _close(held.connection)
        return _Held(self._open())

    def _open(self):
        urls, why = self.link.urls, None
        # Where the last attempt succeeded comes first: a server that is down costs its timeout once.
        for index in [*range(self._first, len(urls)), *range(self._first)]:
            try:
                made = self._connect(urls[index])
            except (exceptions.LDAPException, OSError) as error:
                why = f'{urls[index]}: {error}'
            else:
                self._first = index
                return made
        raise Away(why)

    def _connect(self, url):
        link = self.link
        tls = ldap3.Tls(validate=link.check, ca_certs_file=link.ca_file, ca_certs_path=link.ca_folder) \
            if link.start_tls or url.lower().startswith('ldaps') else None
        server = ldap3.Server(url, get_info=ldap3.NONE, connect_timeout=link.timeout, tls=tls,
                              allowed_referral_hosts=[('*', True)] if link.referrals else None)
        who = link.user if self.bound else None
        made = ldap3.Connection(
            server, user=who, password=link.password if who else None, authentication=ldap3.SIMPLE if who else ldap3.ANONYMOUS,
            client_strategy=ldap3.SYNC, receive_timeout=max(int(link.timeout), 1), auto_referrals=link.referrals, check_names=False)
        made.open()
        try:
            if link.start_tls and not made.start_tls():
                raise exceptions.LDAPStartTLSError(made.last_error)
            if who and not made.bind():
                raise exceptions.LDAPBindError(f"the account {who} is refused: {made.result['description']}")
        except BaseException:
            _close(made)
            raise
        return made

    def run(self, operation):
        """``operation(connection)``, again on another connection where one was lost on the way: for what may be done twice."""
        attempt = 0
        while True:
            try:
                with self.connection() as connection:
                    return operation(connection)
            except (exceptions.LDAPCommunicationError, OSError) as error:
                attempt += 1
                if attempt >= self.link.tries:
                    raise Away(error) from None
                time.sleep(self.link.pause)
            except exceptions.LDAPException as error:
                raise Away(error) from None

    def once(self, operation):
        """As :meth:`run`, but never twice."""
        try:
            with self.connection() as connection:
                return operation(connection)
        except (exceptions.LDAPException, OSError) as error:
            raise Away(error) from None

    def search(self, base, condition, scope, attributes):
        """Entries as ``[(dn, {attribute in lower case: [bytes]})]``; none where the base isn't there."""
        return self.run(lambda connection: list(self._pages(connection, base, condition, scope, attributes)))

    def _pages(self, connection, base, condition, scope, attributes):
        cookie = None
        while True:
            connection.search(base, condition, scope, attributes=attributes, dereference_aliases=self.link.aliases,
                              paged_size=None if scope == ldap3.BASE else self.link.page_size, paged_cookie=cookie)
            code = connection.result['result']
            if code == results.RESULT_NO_SUCH_OBJECT:
                return
            if code != results.RESULT_SUCCESS:
                # Part of a list is no list: people would seem to be gone.
                raise exceptions.LDAPOperationResult(result=code,
                                                     description=f"search below {base}: {connection.result['description']}")
            for found in connection.response:
                if found['type'] == 'searchResEntry':
                    yield found['dn'], {name.lower(): values for name, values in found['raw_attributes'].items()}
            cookie = connection.result.get('controls', {}).get(PAGED, {}).get('value', {}).get('cookie')
            if not cookie:
                return

    def check(self, dn, password):
        """True if the directory takes ``password`` for the entry ``dn``."""
        if not password or '\0' in password:
            # An empty one would log in anonymously, and succeed.
            return False

        def bind(connection):
            connection.rebind(user=dn, password=password, authentication=ldap3.SIMPLE)
            code = connection.result['result']
            if code in AWAY:
                raise exceptions.LDAPOperationResult(result=code, description=connection.result['description'])
            return code == results.RESULT_SUCCESS
        return self.run(bind)

    def change(self, operation, what):
        """A write: ``operation(connection)`` returns True or leaves the reason in ``connection.result``.

        :raises Conflict: the entry is there already, or the directory's rules forbid it. :raises NotFound: it is not there.
        """
        def write(connection):
            if operation(connection):
                return
            code, said = connection.result['result'], connection.result['description']
            if code == results.RESULT_NO_SUCH_OBJECT:
                raise errors.NotFound(f'{what}: there is no such entry in the directory.')
            if code in (results.RESULT_ENTRY_ALREADY_EXISTS, results.RESULT_ATTRIBUTE_OR_VALUE_EXISTS):
                raise Refused(f'{what}: it is in the directory already.')
            LOG.warning('%s: the directory says %s %s', what, said, connection.result.get('message'))
            if code == results.RESULT_INSUFFICIENT_ACCESS_RIGHTS:
                raise errors.Forbidden(f'{what}: the directory does not allow it.')
            if code in AWAY and code != results.RESULT_UNWILLING_TO_PERFORM:
                raise Away(said)
            raise errors.BadRequest(f'{what}: the directory refuses it ({said}).')
        self.once(write)


def _close(connection):
    with contextlib.suppress(Exception):
        connection.unbind()
