"""Project ids in paths, as catalogs have them for Nova and Cinder."""
import re

from .. import errors
from . import faults

PROJECT = re.compile(r'^/([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?=/)')


class ProjectPaths:
    """Takes the project id out of paths that begin with one; a path that ends in a slash names nothing.

    The id, with its slash, stands in ``environ['kodiak.project_path']`` for links.

    :param acting: a role whose bearers, the other services, may name any project: they act for it.
    """

    def __init__(self, application, acting=None):
        self.application = application
        self.acting = acting

    def __call__(self, environ, start_response):
        found = PROJECT.match(environ.get('PATH_INFO', ''))
        if found is not None:
            own = environ.get('HTTP_X_PROJECT_ID')
            if own and own.replace('-', '') != found[1].replace('-', ''):
                if self.acting is None or self.acting not in environ.get('HTTP_X_ROLES', '').split(','):
                    return self._refuse(start_response, errors.BadRequest('Malformed request url'))
                environ['HTTP_X_PROJECT_ID'] = found[1]
            environ['PATH_INFO'] = environ['PATH_INFO'][found.end():]
            environ['kodiak.project_path'] = found[0]
        if environ.get('PATH_INFO', '').endswith('/') and environ['PATH_INFO'] != '/':
            return self._refuse(start_response, errors.NotFound())
        return self.application(environ, start_response)

    @staticmethod
    def _refuse(start_response, error):
        body, kind = faults.body(error, None, '')
        start_response(f'{error.code} {error.title}', [('Content-Type', kind), ('Content-Length', str(len(body)))])
        return [body]
