"""The admin command of a service: ``kodiak-<service> db sync``, and what the service adds."""
import argparse
import json
import sys
import textwrap

from . import config, db


class Commands:
    """Collects sub-commands and runs the one that was asked for.

    :param service: its short name. :param load_conf: ``function(args) -> conf``. :param apis: ``function() -> [Api]`` for
        the documents that follow from the declarations. :param database: whether it has one. :param broker: whether it has one.
        :param root: whether an agent of it has a privileged daemon.
    """

    def __init__(self, service, load_conf, apis=None, database=True, broker=False, root=False):
        self.service = service
        self.load_conf = load_conf
        self.apis = apis
        self.parser = argparse.ArgumentParser(prog='kodiak-' + service)
        self.parser.add_argument('--config-file', action='append', default=[], help='configuration file')
        self.groups = self.parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
        if database:
            self._database()
        self.add('config-sample', lambda conf, options: print(config_sample(_whole(conf, broker, root)), end=''),
                 'Print <service>.conf.sample: every option with its default.')
        if apis:
            self._documents()

    def add(self, name, function, help, arguments=()):
        """Add a command: ``function(conf, options)``; ``arguments`` are ``(flags, keywords)`` of add_argument."""
        parser = self.groups.add_parser(name, help=help, description=help)
        for flags, keywords in arguments:
            parser.add_argument(*flags, **keywords)
        parser.set_defaults(function=function)
        return parser

    def _database(self):
        self.add('db', self._db, 'Migrate the database.', [
            (['action'], {'choices': ['sync', 'expand', 'contract', 'version', 'check', 'revision']}),
            (['-m', '--message'], {'default': 'change', 'help': 'what a new revision does'})])

    def _db(self, conf, options):
        from . import migrate  # alembic's 8 MB are for this command, not for the processes that import this module
        database = db.Database(config.database_url(conf, self.service))
        if options.action == 'version':
            print('\n'.join(migrate.current(database)) or 'empty')
        elif options.action == 'check':
            different = migrate.differences(database, self.service)
            for difference in different:
                print(difference)
            return 1 if different or not migrate.ready(database, self.service) else 0
        elif options.action == 'revision':
            migrate.revision(database, self.service, options.message)
        else:
            migrate.sync(database, self.service, 'heads' if options.action == 'sync' else options.action + '@head')
        return 0

    def _documents(self):
        self.add('openapi', self._openapi, 'Print the OpenAPI documents of the APIs.')
        self.add('reference', self._reference, 'Print the API reference as reStructuredText.')
        self.add('policy-sample', lambda conf, options: print(policy_sample(self.apis()), end=''),
                 'Print policy.yaml.sample: every rule with its default.')

    def _openapi(self, conf, options):
        from .api import openapi
        print(json.dumps([openapi.document(api) for api in self.apis()], indent=1))

    def _reference(self, conf, options):
        from .api import openapi
        print('\n'.join(openapi.reference(api) for api in self.apis()))

    def run(self, argv=None):
        """Run the command line; returns the exit status."""
        options = self.parser.parse_args(argv)
        arguments = [part for path in options.config_file for part in ('--config-file', path)]
        return options.function(self.load_conf(arguments), options) or 0


def _whole(conf, broker, root):
    """The configuration with the options that libraries register when they are first used."""
    from keystoneauth1 import loading

    from . import authtoken
    conf.register_opts([option for option in loading.get_auth_plugin_conf_options('password')
                        if option.dest not in conf[authtoken.GROUP]], group=authtoken.GROUP)
    if broker:
        from . import noeventlet
        noeventlet.import_messaging()
        from oslo_messaging import opts
        for group, found in opts.list_opts():
            if group in ('oslo_messaging_rabbit', 'oslo_messaging_notifications'):
                conf.register_opts(found, group=group)
    if root:
        from . import privileged
        conf.register_opts(privileged.OPTS, group='privileged')
    return conf


def config_sample(conf):
    """``<service>.conf.sample``: each option that a process of the service reads, commented out, with what it is for."""
    lines = []
    groups = [('DEFAULT', conf._opts), *sorted((name, group._opts) for name, group in conf._groups.items())]
    for name, found in groups:
        lines += [f'[{name}]', '']
        for entry in sorted(found.values(), key=lambda entry: entry['opt'].name):
            option = entry['opt']
            if option.dest in ('config_file', 'config_dir', 'config_source', 'shell_completion'):
                continue
            default = option.sample_default if option.sample_default is not None else entry.get('default', option.default)
            lines += ['# ' + line for line in textwrap.wrap(option.help or option.name, 118)]
            if option.multi and default:
                lines += [*(f'#{option.dest} = {each}' for each in default), '']
                continue
            if isinstance(default, (list, tuple)):
                default = ','.join(map(str, default))
            lines += [f'#{option.dest} = {"" if default is None else default}', '']
    return '\n'.join(lines)


def policy_sample(apis):
    """``policy.yaml.sample`` of some APIs: each rule, commented out, with what it decides."""
    lines = ['# Every policy rule with its default. Take the # away in front of a rule to change it.', '']
    for api in apis:
        for name, check, description in sorted(api.all_rules()):
            lines += [f'# {description}', f'#"{name}": "{check}"', '']
    return '\n'.join(lines)


def main(commands):
    """Entry point: run and exit."""
    sys.exit(commands.run())
