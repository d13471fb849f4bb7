"""Check strings of the default policies: the personas admin, system reader, domain manager and reader, owner."""

BASE = [
    ('admin_required', 'role:admin', 'The administrator, whatever the scope of the token'),
    ('cloud_admin', 'rule:admin_required and not scope:domain',
     'The administrator, with a token of a project or of the system: for what belongs to no domain'),
    ('service_role', 'role:service', 'A service of the cloud'),
    ('system_reader', 'role:reader and system_scope:all', 'Whoever may look at everything'),
    ('domain_managed_role', "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
     'The roles that a manager of a domain may give and take'),
]

ANYBODY = '@'
#: for what belongs to a domain
ANY_ADMIN = 'rule:admin_required'
ANY_READ = 'rule:admin_required or rule:system_reader'
#: for what belongs to no domain
ADMIN = 'rule:cloud_admin'
READ = 'rule:cloud_admin or rule:system_reader'
SERVICE = 'rule:admin_required or rule:service_role'


def domain_reader(key):
    """Admin, system reader, or reader of the domain that stands under ``key`` in the target."""
    return f'{ANY_READ} or (role:reader and domain_id:%({key})s)'


def domain_manager(key):
    """Admin, or manager of the domain that stands under ``key`` in the target."""
    return f'{ANY_ADMIN} or (role:manager and domain_id:%({key})s)'


def owner_reads(key):
    """Admin, system reader, or the user that stands under ``key`` in the target."""
    return f'{ANY_READ} or user_id:%({key})s'


def owner_writes(key):
    """Admin, or the user that stands under ``key`` in the target."""
    return f'{ANY_ADMIN} or user_id:%({key})s'


def no_domain(check):
    """``check``, but never with a token of a domain."""
    return f'({check}) and not scope:domain'


def in_project(check):
    """``check``, but never with a token of a domain or of the system."""
    return f'({check}) and not scope:domain and not scope:system'


USER_READ = domain_reader('target.user.domain_id') + ' or user_id:%(target.user.id)s'
USER_WRITE = domain_manager('target.user.domain_id')
GROUP_READ = domain_reader('target.group.domain_id')
GROUP_WRITE = domain_manager('target.group.domain_id')
PROJECT_READ = domain_reader('target.project.domain_id') + ' or project_id:%(target.project.id)s'
PROJECT_WRITE = domain_manager('target.project.domain_id')
LIST = domain_reader('target.domain_id')
