from oslo_config import cfg

from kodiak.common import cli, config


def test_the_config_sample_has_every_option_with_its_default(capsys):
    opts = {'things': [cfg.IntOpt('most', default=7, help='How many things there may be.'),
                       cfg.MultiStrOpt('names', default=['one', 'two'])]}
    commands = cli.Commands('test', lambda args: config.load('test', opts, args=args, files=[]))
    assert commands.run(['config-sample']) == 0
    text = capsys.readouterr().out
    assert '[things]\n\n# How many things there may be.\n#most = 7\n' in text
    assert '#names = one\n#names = two\n' in text
    assert '#host = <the host name>' in text and '#connection = \n' in text and 'config_file' not in text


def test_the_config_sample_has_what_libraries_read(capsys):
    def sample(**more):
        cli.Commands('test', lambda args: config.load('test', {}, args=args, files=[]), **more).run(['config-sample'])
        return capsys.readouterr().out
    assert '#password = \n' in sample() and '[oslo_messaging_rabbit]' not in sample()
    text = sample(broker=True, root=True)
    assert '[oslo_messaging_rabbit]\n' in text and '#ssl_ca_file = \n' in text and '#helper_command = sudo -n ' in text
