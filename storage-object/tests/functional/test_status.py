"""What ``kodiak status`` makes of a node of object storage, which has no database."""
import os

from kodiak.common.operator import installation, status


def test_only_what_runs_on_the_node_is_looked_for(tmp_path):
    (tmp_path / 'storage-object.conf').write_text(
        f'[DEFAULT]\nhost = here\nrun_path = {tmp_path}\n[api]\nbind_host = 127.0.0.1\nbind_port = 9\n'
        '[storage]\nserver_port = 7\n')

    def found():
        return {(line['binary'], line['host'], line['state']) for line in status.collect(installation.services(str(tmp_path)))}
    assert found() == {('kodiak-object-proxy', 'here', 'down'), ('kodiak-object-server', 'here', 'down')}
    os.mkdir(tmp_path / 'kodiak-object-server.metrics')
    assert found() == {('kodiak-object-server', 'here', 'down')}
