"""Properties that only some roles may see and change."""
import dataclasses

import pytest
from oslo_config import cfg

from kodiak.common import testing
from kodiak.image import protections

RULES = """
- name: ^x_secret_
  create: [admin]
  read: [admin, Billing]
- name: ^x_shown_
  create: [admin, billing]
  read: '@'
  update: [billing]
  delete: '!'
- name: ^[^y]
  create: '@'
  read: '@'
  update: '@'
  delete: '@'
"""
BILLING = dataclasses.replace(testing.MEMBER, roles=('member', 'reader', 'billing'))
PATCH = {'Content-Type': 'application/openstack-images-v2.1-json-patch'}


@pytest.fixture
def write(cloud, tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / protections.FILE
        path.write_text(text)
        monkeypatch.setattr(cfg.ConfigOpts, 'find_file', lambda conf, name: str(path) if name == protections.FILE else None)
        for function in cloud.runtime.on_reload:
            function()
    return write


def change(client, image, operation, name, status, value='x'):
    body = {'op': operation, 'path': '/' + name, **({} if operation == 'remove' else {'value': value})}
    return client.patch('/v2/images/' + image['id'], [body], headers=PATCH).expect(status)


def test_who_may_do_what(cloud, member, admin, helpers, write):
    write(RULES)
    billing = cloud.client(BILLING)
    for name, boss, clerk, other in (('x_secret_1', 201, 403, 403), ('x_shown_1', 201, 201, 403), ('plain', 201, 201, 201),
                                     ('y', 403, 403, 403)):
        for client, status in ((admin, boss), (billing, clerk), (member, other)):
            client.post('/v2/images', {name: 'v'}).expect(status)
    image = helpers.create(admin, x_secret_1='a', x_shown_1='b', plain='c', owner=testing.PROJECT)
    path = '/v2/images/' + image['id']
    for client, seen in ((admin, 'abc'), (billing, 'abc'), (member, 'bc')):
        for shown in (client.get(path).json, client.get('/v2/images?plain=c').json['images'][0]):
            assert ''.join(shown.get(name, '') for name in ('x_secret_1', 'x_shown_1', 'plain')) == seen
        # A filter tells nothing of what may not be read.
        assert len(client.get('/v2/images?x_secret_1=a').expect(200).json['images']) == (seen == 'abc')
    change(member, image, 'replace', 'x_secret_1', 409)
    change(member, image, 'remove', 'x_secret_1', 409)
    change(billing, image, 'replace', 'x_secret_1', 403)
    change(member, image, 'add', 'x_secret_2', 403)
    change(member, image, 'replace', 'x_shown_1', 403)
    change(billing, image, 'replace', 'x_shown_1', 200)
    change(admin, image, 'remove', 'x_shown_1', 403)
    change(member, image, 'replace', 'plain', 200)
    change(member, image, 'remove', 'plain', 200)
    assert admin.get(path).json['x_secret_1'] == 'a' and admin.get(path).json['x_shown_1'] == 'x'
    # The rules are read again with the configuration.
    write('')
    assert member.get(path).json['x_secret_1'] == 'a'


@pytest.mark.parametrize('text', ['- name: "("', '- create: "@"', '- name: x\n  read: everybody', 'x', '- name: x\n  write: "@"',
                                  '- 1'])
def test_rules_that_make_no_sense(tmp_path, text):
    (tmp_path / 'x').write_text(text)
    with pytest.raises(cfg.ConfigFileValueError):
        protections.Protections(tmp_path / 'x')
