"""Compares the default policies of a service with those of the stock one, as every persona: policies.py SERVICE VENV [NAME].

VENV is a virtual environment with the stock service (pip install keystone; for image: glance), whose rules are read from there;
NAME is what it calls itself, where SERVICE isn't identity or image. For each rule that both know, every persona of a project, of
a domain and of the system asks for what is its own, what is somebody else's, and what belongs to no domain. A line is printed for
each answer that differs, and for each rule that only one of the two has.
"""
import importlib
import itertools
import json
import re
import subprocess
import sys

from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from kodiak.common import policy

STOCK = {'identity': 'keystone', 'image': 'glance'}
READ = """
import importlib.metadata, json, sys
found = [rule for entry in importlib.metadata.entry_points(group='oslo.policy.policies') if entry.name == sys.argv[1]
         for rule in entry.load()()]
print(json.dumps([[rule.name, rule.check_str, rule.scope_types] for rule in found]))
"""
ROLES = {'admin': ['admin', 'manager', 'member', 'reader'], 'manager': ['manager', 'member', 'reader'],
         'member': ['member', 'reader'], 'reader': ['reader'], 'service': ['service'], 'no role': []}
MINE = {'user': 'u', 'project': 'p', 'domain': 'd'}
TARGETS = {'its own': MINE, "another's": {'user': 'x', 'project': 'x', 'domain': 'x'},
           'of no domain': {**MINE, 'user': 'x', 'project': 'x', 'domain': None}}


def personas():
    """``{name: (scope, credentials)}``; ``token`` is how Keystone's older rules see the same."""
    found = {}
    for scope, (name, roles) in itertools.product(('project', 'domain', 'system'), ROLES.items()):
        if scope != 'project' and name in ('service', 'no role'):
            continue
        found[f'{name} of the {scope}'] = scope, {
            'user_id': 'u', 'user': 'u', 'user_domain_id': 'd', 'roles': roles, 'scope': scope, 'service_roles': [],
            'is_admin': 'admin' in roles, 'project_id': None, 'domain_id': None, 'system_scope': None, **{
                'project': {'project_id': 'p', 'tenant': 'p', 'tenant_id': 'p', 'project_domain_id': 'd',
                            'token': {'project': {'domain': {'id': 'd'}}}},
                'domain': {'domain_id': 'd', 'token': {'domain': {'id': 'd'}}},
                'system': {'system_scope': 'all', 'token': {'system': {'all': True}}}}[scope]}
    return found


def target_of(names, values):
    """A target with all attributes that check strings name, but those that it lacks; the last word of a name says what it is."""
    # Roles are those of all domains: the stock rules ask for just that.
    found = {'target.role.domain_id': None}
    for name in names:
        if name.endswith('role.name'):
            found[name] = 'member'
            continue
        if name in found:
            continue
        words = [word for word in re.split(r'[._]', name) if word in ('user', 'project', 'tenant', 'domain', 'owner')]
        kind = words[-1] if words else 'project'
        value = values[{'tenant': 'project', 'owner': 'project'}.get(kind, kind)]
        if value is not None:
            found[name] = value
    return found


def compare(ours, theirs):
    """Lines that say where the two differ: ``ours`` ``[(name, check)]``, ``theirs`` ``[(name, check, scopes)]``."""
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[])
    mine = policy.Enforcer(conf, [(name, check, '') for name, check in ours])
    stock = oslo_policy.Enforcer(conf, use_conf=False)
    stock.set_rules(oslo_policy.Rules.from_dict({name: check for name, check, _ in theirs}), use_conf=False)
    scopes = {name: types for name, _, types in theirs}
    names = {name for _, check, *_ in (*ours, *theirs) for name in re.findall(r'%\(([^)]+)\)s', check)}
    known = {name for name, _ in ours}
    lines = [f'{name}: only there' for name in sorted(scopes.keys() - known)]
    lines += [f'{name}: only here' for name in sorted(known - scopes.keys())]
    for rule in sorted(known & scopes.keys()):
        if scopes[rule] is None:
            continue            # a part of other rules
        for (who, (scope, credentials)), (whose, values) in itertools.product(personas().items(), TARGETS.items()):
            target = target_of(names, values)
            here = bool(mine.allows(rule, credentials, target))
            there = scope in scopes[rule] and bool(stock.enforce(rule, target, dict(credentials)))
            if here != there:
                lines.append(f"{rule}: {who}, {whose}: {'yes' if here else 'no'} here, {'yes' if there else 'no'} there")
    return lines


def main(service, venv, stock=None):
    """Print the comparison."""
    api = importlib.import_module(f'kodiak.{service}.api').API
    done = subprocess.run([f'{venv}/bin/python', '-W', 'ignore', '-c', READ, stock or STOCK[service]], check=True,
                          capture_output=True, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    lines = compare([(name, check) for name, check, _ in api.all_rules()], theirs)
    print('\n'.join(lines))
    print(f'{len(theirs)} rules there, {len(lines)} differences')


if __name__ == '__main__':
    main(*sys.argv[1:])
