"""The admin command, ``kodiak-identity``."""
import contextlib
import dataclasses
import datetime
import getpass
import json
import os
import sys

from kodiak.common import cli, db, errors

from . import bootstrap, copies, core, crypt, directory, doctor, housekeeping, mapping, trusts
from .saml import ours


def _core(conf):
    return core.Core(conf, db.Database(conf.database.connection))


def _bootstrap(conf, options):
    password = os.environ.get('OS_BOOTSTRAP_PASSWORD')
    if not password:
        password = getpass.getpass('Password of the admin user: ') if sys.stdin.isatty() else sys.stdin.readline().rstrip('\n')
    if not password:
        print('The admin user needs a password: set OS_BOOTSTRAP_PASSWORD or write it to standard input.', file=sys.stderr)
        return 2
    urls = {'public': options.public_url, 'internal': options.internal_url or options.public_url,
            'admin': options.admin_url or options.public_url}
    for sentence in bootstrap.run(_core(conf), password, urls, user=options.username, project=options.project_name,
                                  region=options.region_id, service=options.service_name):
        print(sentence)
    return 0


def _keys(conf, options):
    found = _core(conf)
    ring = found.ring
    if options.action == 'setup':
        made = len(ring.setup()) + found.crypt.setup()
        print(f'Made {made} keys in {ring.path} and {found.crypt.path}.' if made else f'{ring.path} has its keys.')
        _give(ring.path)
        _give(found.crypt.path)
    elif options.action == 'rotate':
        current, coming = ring.rotate()
        print(f'Key {current} signs now, key {coming} is published and signs after the next rotation.')
        _give(ring.path)
    elif options.action == 'list':
        for name, key_id in ring.listing():
            print(f'{key_id}  {name}')
    elif options.action == 'export':
        if sys.stdout.isatty():
            print('This is an archive of secrets: pipe it into "kodiak-identity keys import" on another server.', file=sys.stderr)
            return 2
        sys.stdout.buffer.write(copies.pack(found))
    elif options.action == 'import':
        try:
            found.state.look()
            count = copies.unpack(found, sys.stdin.buffer.read(), options.replace, found.state.revoked_keys)
        except copies.Refused as error:
            print(error, file=sys.stderr)
            return 1
        for path in copies.folders(found).values():
            if os.path.isdir(path):
                _give(path)
        print(f'{count} keys are as on the server that they come from.')
    else:
        if not options.key:
            print('Which key? Give its id (see "keys list").', file=sys.stderr)
            return 2
        try:
            ring.remove(options.key)
        except KeyError:
            print(f'There is no key {options.key} in {ring.path}.', file=sys.stderr)
            return 1
        _give(ring.path)
        found.db.transact(found.revoke, {'key_id': options.key, 'issued_before': 1e12})
        print(f'Key {options.key} is revoked: no service accepts its tokens any more.')
    return 0


def _give(path):
    # Run by root, the files still belong to the user that identity runs as: the owner of the folder above.
    if os.geteuid() != 0:
        return
    owner = os.stat(os.path.dirname(path))
    for name in ('', *os.listdir(path)):
        os.chown(os.path.join(path, name), owner.st_uid, owner.st_gid)


def _credential_keys(conf, options):
    found = _core(conf)
    found.crypt.setup()
    if options.action == 'rotate':
        found.crypt.advance()
        _give(found.crypt.path)
        count = found.db.transact(crypt.encrypt_again, found.crypt)
        found.crypt.retire()
        print(f'{count} credentials are encrypted with a new key.')
    _give(found.crypt.path)
    return 0


def _saml(conf, options):
    found = _core(conf)
    held = found.saml.keys
    if options.action == 'metadata':
        sys.stdout.write(ours.metadata(found).decode() + '\n')
        return 0
    # A certificate's name is for people only.
    if options.action == 'setup':
        made = held.setup(conf.host)
        print(f'Made {made} keys in {held.path}.' if made else f'{held.path} has its keys.')
    else:
        held.rotate(conf.host)
        print('The key that was published signs now, another one is published. Let the others read the metadata again before the '
              'next rotation.')
    _give(held.path)
    return 0


def _mapping(conf, options):
    with open(options.rules, encoding='utf-8') as file:
        rules = json.load(file)
    with open(options.input, encoding='utf-8') as file:
        assertion = dict(line.rstrip('\n').split(':', 1) for line in file if ':' in line)
    try:
        rules = rules.get('rules', rules) if isinstance(rules, dict) else rules
        mapping.validate(rules)
        found = mapping.apply(rules, {name.strip(): value.strip() for name, value in assertion.items()})
    except errors.Error as error:
        print(error.message, file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(found), indent=2))
    return 0


def _directory(conf, options):
    found = _core(conf)
    found.state.look()
    with found.db.read() as connection:
        domain_id = directory.domain_named(connection, {'name': options.domain}) or options.domain
        there = found.directories.domains(connection)
    if domain_id not in there:
        print(f'Domain {options.domain} has no directory: set its options identity driver=ldap and ldap.', file=sys.stderr)
        return 1
    try:
        if options.action == 'purge':
            print(f'{found.directories.purge(domain_id)} users and groups are deleted that the directory no longer has.')
        else:
            people, groups = found.directories.refresh(domain_id)
            print(f'The directory has {people} users and {groups} groups.')
    except errors.Error as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


def _trust_flush(conf, options):
    before = db.utcnow()
    if options.date:
        for form in ('%d-%m-%Y', '%Y-%m-%d'):
            with contextlib.suppress(ValueError):
                before = datetime.datetime.strptime(options.date, form)
                break
        else:
            print(f'{options.date} is no date: give it as DD-MM-YYYY or YYYY-MM-DD.', file=sys.stderr)
            return 2
    count = _core(conf).db.transact(trusts.flush, before, options.project_id, options.trustor_user_id, options.trustee_user_id)
    print(f'{count} trusts are removed that ended before {before:%Y-%m-%d %H:%M:%S} UTC.')
    return 0


def _clear(conf, options):
    housekeeping.clear(_core(conf))
    return 0


def _doctor(conf, options):
    faults = doctor.faults(_core(conf))
    for fault in faults:
        print(fault)
    if not faults:
        print('Nothing is wrong.')
    return 1 if faults else 0


def build(load_conf, apis):
    """The :class:`kodiak.common.cli.Commands` of identity."""
    commands = cli.Commands('identity', load_conf, apis, broker=True)
    commands.add('bootstrap', _bootstrap, 'Create the default domain, the admin user, roles and the catalog of identity. The '
                 'password comes from OS_BOOTSTRAP_PASSWORD or from standard input.', [
                     (['--username'], {'default': 'admin'}), (['--project-name'], {'default': 'admin'}),
                     (['--region-id'], {'default': 'RegionOne'}), (['--service-name'], {'default': 'keystone'}),
                     (['--public-url'], {'required': True}), (['--internal-url'], {}), (['--admin-url'], {})])
    commands.add('keys', _keys, 'Manage the keys that sign tokens; setup makes the keys of stored credentials too. export writes '
                 'all keys to standard output, for import on the other identity servers.', [
        (['action'], {'choices': ['setup', 'rotate', 'list', 'revoke', 'export', 'import']}),
        (['key'], {'nargs': '?', 'help': 'id of the key to revoke (it leaked): all its tokens become invalid'}),
        (['--replace'], {'action': 'store_true', 'help': 'import even where this server signs with a key that is not among them'})])
    commands.add('credential-keys', _credential_keys, 'Manage the keys that encrypt stored credentials.', [
        (['action'], {'choices': ['setup', 'rotate']})])
    commands.add('saml', _saml, 'Manage the keys of SAML, or print the metadata that others read.', [
        (['action'], {'choices': ['setup', 'rotate', 'metadata']})])
    commands.add('mapping-test', _mapping,
                 'Say whom the rules of a mapping (JSON) make of an assertion (lines of "attribute: value").', [
        (['rules'], {}), (['input'], {})])
    commands.add('directory', _directory, 'Look through the directory (LDAP) of a domain now; purge deletes what the users and '
                 'groups had that it no longer has.', [
                     (['action'], {'choices': ['refresh', 'purge']}), (['domain'], {'help': 'name or id'})])
    commands.add('trust-flush', _trust_flush, 'Remove what is kept of trusts that have ended: expired or deleted ones.', [
        (['--project-id'], {'help': 'only those in this project'}),
        (['--trustor-user-id'], {'help': 'only those given by this user'}),
        (['--trustee-user-id'], {'help': 'only those given to this user'}),
        (['--date'], {'help': 'only those that ended before this day (DD-MM-YYYY, UTC); now if not given'})])
    commands.add('clear', _clear, 'Remove expired revocations, memberships and OAuth tokens.')
    commands.add('doctor', _doctor, 'Check keys, database, directories and identity providers; say what to do about each fault.')
    return commands
