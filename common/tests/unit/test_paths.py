"""Project ids in paths."""
import pytest

from kodiak.common.api.paths import ProjectPaths

PROJECT = 'a' * 32


def ask(path, acting=None, **environ):
    seen = {}

    def application(found, start_response):
        seen.update(found)
        start_response('200 OK', [])
        return [b'']
    status = []
    ProjectPaths(application, acting)({'PATH_INFO': path, **environ}, lambda line, headers: status.append(line))
    return status[0], seen


def test_the_project_is_taken_out_and_remembered():
    status, seen = ask(f'/{PROJECT}/volumes', HTTP_X_PROJECT_ID=PROJECT)
    assert status == '200 OK' and seen['PATH_INFO'] == '/volumes' and seen['kodiak.project_path'] == '/' + PROJECT
    assert ask('/volumes')[1]['PATH_INFO'] == '/volumes'


@pytest.mark.parametrize('path, status', [(f'/{"b" * 32}/volumes', '400 Bad Request'), (f'/{PROJECT}/volumes/', '404 Not Found')])
def test_what_is_refused(path, status):
    assert ask(path, HTTP_X_PROJECT_ID=PROJECT)[0] == status


def test_a_service_acts_for_the_project_in_the_path():
    other = 'b' * 32
    status, seen = ask(f'/{other}/volumes', 'service', HTTP_X_PROJECT_ID=PROJECT, HTTP_X_ROLES='admin,service')
    assert status == '200 OK' and seen['HTTP_X_PROJECT_ID'] == other
    assert ask(f'/{other}/volumes', 'service', HTTP_X_PROJECT_ID=PROJECT, HTTP_X_ROLES='admin')[0] == '400 Bad Request'
