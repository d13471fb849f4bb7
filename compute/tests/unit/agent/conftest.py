"""Fixtures of the agent's unit tests."""

import pytest
from oslo_config import cfg

from kodiak.common import testing
from kodiak.compute.agent.conf import OPTS

testing.share(__file__, 'shapes', prefix='agent')


@pytest.fixture
def conf(tmp_path):
    conf = cfg.ConfigOpts()
    conf.register_opts(OPTS['agent'], group='agent')
    conf.register_opts([cfg.StrOpt('state_path', default=str(tmp_path)), cfg.StrOpt('host', default='one')])
    conf([])
    return conf


class Images:
    """An image service that has ``data`` and takes everything."""

    def __init__(self):
        self.data = {}
        self.uploaded = {}
        self.downloads = []

    def download(self, image_id):
        self.downloads.append(image_id)
        yield self.data[image_id]

    def upload(self, image_id, file, size, disk_format):
        self.uploaded[image_id] = (file.read(), disk_format)


@pytest.fixture
def images():
    return Images()
