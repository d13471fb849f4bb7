"""Who may do what: oslo.policy rules, declared with the endpoints, overridden by ``policy.yaml``.

A rule's default stands in its endpoint's declaration. The check strings below are the personas of a
secure default: admin, and member and reader of the project (or the system) that owns the target.
oslo.policy parses the rules and reads the file. Evaluating is done here, by closures made of its parse tree once:
oslo.policy's own evaluation inspects a signature at every node of every check, which in a list of a thousand
rows is most of the request. Kinds of checks that this module doesn't know are left to oslo.policy.
"""
import re
import threading
import time

from oslo_policy import _checks
from oslo_policy import policy as oslo_policy

from . import errors

ANYBODY = '@'
NOBODY = '!'
ADMIN = 'role:admin'
SERVICE = 'role:service or role:admin'
MEMBER = 'role:member or role:manager or role:admin'
READER = 'role:reader or role:member or role:manager or role:admin'
PROJECT_MEMBER = '(role:member and project_id:%(project_id)s) or role:admin'
PROJECT_READER = '((role:reader or role:member) and project_id:%(project_id)s) or role:admin'
OWNER = 'user_id:%(user_id)s or role:admin'

RELOAD_SECONDS = 5


class Enforcer:
    """The rules of one service.

    :param conf: the service's configuration; ``[oslo_policy] policy_file`` overrides defaults.
    :param rules: iterable of ``(name, check string, description)``.
    """

    def __init__(self, conf, rules=()):
        self._enforcer = oslo_policy.Enforcer(conf, rules=None, use_conf=True)
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.suppress_default_change_warnings = True
        self._lock = threading.Lock()
        self._names = set()
        self._next_load = 0
        self._loaded = None
        self._checks = {}
        self.add(rules)

    def add(self, rules):
        """Register more defaults. The same name twice must mean the same check."""
        for name, check, description in rules:
            if name in self._names:
                continue
            self._names.add(name)
            self._enforcer.register_default(oslo_policy.RuleDefault(name, check, description))
        self._checks = {}
        self._next_load = 0

    def reload(self):
        """Read ``policy.yaml`` again at the next question."""
        self._next_load = 0

    def allows(self, rule, context, target=None):
        """True if ``context`` may do ``rule`` to ``target`` (a mapping; by default what the caller owns)."""
        check = self.check(rule)
        credentials = context if isinstance(context, dict) else credentials_of(context)
        return check(credentials if target is None else target, credentials)

    def check(self, rule):
        """The rule as a function ``(target, credentials) -> bool``; unknown rules say no."""
        now = time.monotonic()
        if now >= self._next_load:
            with self._lock:
                self._enforcer.load_rules()
                if self._enforcer.rules is not self._loaded:
                    self._loaded, self._checks = self._enforcer.rules, {}
                self._next_load = now + RELOAD_SECONDS
        found = self._checks.get(rule)
        if found is None:
            parsed = self._enforcer.rules.get(rule)
            found = self._checks[rule] = _never if parsed is None else self._compile(parsed, rule)
        return found

    def _compile(self, check, rule):
        if isinstance(check, _checks.TrueCheck):
            return _always
        if isinstance(check, _checks.FalseCheck):
            return _never
        if isinstance(check, _checks.AndCheck):
            parts = [self._compile(part, rule) for part in check.rules]
            return lambda target, creds: all(part(target, creds) for part in parts)
        if isinstance(check, _checks.OrCheck):
            parts = [self._compile(part, rule) for part in check.rules]
            return lambda target, creds: any(part(target, creds) for part in parts)
        if isinstance(check, _checks.NotCheck):
            part = self._compile(check.rule, rule)
            return lambda target, creds: not part(target, creds)
        if type(check) is _checks.RuleCheck:
            # Looked up at each question: the rule that is referred to may change with the file.
            return lambda target, creds: self.check(check.match)(target, creds)  # noqa: PLW0108
        if type(check) is _checks.RoleCheck and '%' not in check.match:
            role = check.match.lower()
            return lambda target, creds: role in creds['roles']
        if type(check) is _checks.GenericCheck:
            attribute = _attribute(check)
            if attribute is not None:
                return attribute
        return lambda target, creds: bool(_checks._check(check, target, creds, self._enforcer, rule))

    def enforce(self, rule, context, target=None):
        """As :meth:`allows`, but raises ``PolicyForbidden``."""
        if not self.allows(rule, context, target):
            raise errors.PolicyForbidden(rule)


def credentials_of(context):
    """What check strings can refer to, as a dictionary. Cached on the context: it is asked many times."""
    found = getattr(context, '_kodiak_credentials', None)
    if found is None:
        found = {
            'user_id': context.user_id, 'project_id': context.project_id, 'tenant_id': context.project_id,
            'tenant': context.project_id, 'user': context.user_id,
            'domain_id': context.domain_id, 'user_domain_id': context.user_domain_id,
            'project_domain_id': context.project_domain_id, 'roles': [role.lower() for role in context.roles],
            'system_scope': context.system_scope, 'scope': _scope(context), 'service_roles': list(context.service_roles or ()),
            'is_admin': context.is_admin,
        }
        context._kodiak_credentials = found
    return found


def _scope(context):
    """What a token is for: ``system``, ``domain``, ``project``, or ``none`` where it has no scope."""
    if context.system_scope:
        return 'system'
    if context.domain_id:
        return 'domain'
    return 'project' if context.project_id else 'none'


def _always(target, creds):
    return True


def _never(target, creds):
    return False


def _attribute(check):
    """``user_id:%(user_id)s``, ``'public':%(visibility)s`` and ``system_scope:all`` as functions; None for forms that are rarer.

    An attribute that either side lacks never matches: no project is not the same as no project.
    """
    kind, match = check.kind, check.match
    literal = re.fullmatch(r"'(\w+)'", kind)
    if literal and re.fullmatch(r'%\(\w+\)s', match):
        value, name = literal[1], match[2:-2]
        return lambda target, creds: target.get(name) is not None and str(target[name]) == value
    if not kind.isidentifier() or kind in ('None', 'True', 'False'):
        return None
    if match.startswith('%(') and match.endswith(')s') and match.count('%') == 1:
        name = match[2:-2]

        def compare(target, creds):
            mine, theirs = creds.get(kind), target.get(name)
            return mine is not None and theirs is not None and str(mine) == str(theirs)
        return compare
    if '%' in match:
        return None
    return lambda target, creds: creds.get(kind) is not None and str(creds[kind]) == match
