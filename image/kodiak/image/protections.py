"""Protected properties: which roles may create, read, change and remove the custom properties of images.

An operator who wants any writes ``image-properties.yaml`` beside the configuration: a list in which the first entry whose
``name``, a regular expression, matches the beginning of a property's name decides. Each of ``create``, ``read``, ``update`` and
``delete`` is a list of roles, or ``@`` for everybody, or ``!`` for nobody (also where it is left out). A property that no entry
matches is nobody's, so a list usually ends with an entry for ``.*``::

    - name: ^x_billing_
      create: [admin]
      read: [admin, billing]
    - name: .*
      create: '@'
      read: '@'
      update: '@'
      delete: '@'
"""
import re

import yaml
from oslo_config import cfg

from kodiak.common import errors

FILE = 'image-properties.yaml'
#: Begins the names of properties that this service itself sets.
OURS = 'os_glance'
OPERATIONS = ('create', 'read', 'update', 'delete')


class Protections:
    """The rules of a file; without one, everything is allowed.

    :param path: of the file, or None. :raises ConfigFileValueError: it makes no sense.
    """

    def __init__(self, path=None):
        self._rules = []
        self._known = {}
        if path is None:
            return
        with open(path, encoding='utf-8') as file:
            found = yaml.safe_load(file) or []
        try:
            self._rules = [(re.compile(entry['name']), {
                operation: self._roles(entry.get(operation, '!')) for operation in OPERATIONS}) for entry in found]
            unknown = {name for entry in found for name in entry} - {'name', *OPERATIONS}
        except (TypeError, KeyError, AttributeError, ValueError, re.error) as error:
            raise cfg.ConfigFileValueError(f'{path}: {error}') from None
        if unknown:
            raise cfg.ConfigFileValueError(f"{path}: there is no {', '.join(sorted(map(str, unknown)))}")

    @staticmethod
    def _roles(value):
        if value in ('@', '!'):
            return value == '@'
        if not isinstance(value, list) or not all(isinstance(role, str) for role in value):
            raise ValueError(f'{value!r} is neither a list of roles, nor @, nor !')
        return frozenset(role.lower() for role in value)

    def allows(self, ctx, operation, name):
        """Whether a caller may do something with the property of a name."""
        if not self._rules:
            return True
        rule = self._known.get(name)
        if rule is None:
            rule = next((rule for pattern, rule in self._rules if pattern.match(name)), dict.fromkeys(OPERATIONS, False))
            if len(self._known) < 10000:
                self._known[name] = rule
        granted = rule[operation]
        return granted if isinstance(granted, bool) else not granted.isdisjoint(role.lower() for role in ctx.roles)

    def check(self, ctx, operation, name):
        """``Forbidden`` for what a caller may not do; ``Conflict`` as for one that isn't there where it may not even read it."""
        if self.allows(ctx, operation, name):
            return
        if operation != 'create' and not self.allows(ctx, 'read', name):
            raise errors.Conflict(f'Property {name} does not exist.')
        raise errors.Forbidden(f"Property '{name}' is protected")

    def readable(self, ctx, properties):
        """Those of an image's properties that a caller may read."""
        if not self._rules:
            return properties
        return {name: value for name, value in properties.items() if name.startswith(OURS) or self.allows(ctx, 'read', name)}
