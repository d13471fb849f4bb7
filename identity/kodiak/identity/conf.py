"""Options of identity."""
from oslo_config import cfg

OPTS = {
    'DEFAULT': [
        cfg.StrOpt('notification_format', default='cadf', choices=['basic', 'cadf'],
                   help='How changes are told on the message broker, where [notifications] names topics: with the id of what has '
                        'changed, or as CADF audit events. Logins and role assignments are audit events in any case.'),
        cfg.MultiStrOpt('notification_opt_out', default=['identity.authenticate.success', 'identity.authenticate.pending',
                                                         'identity.authenticate.failed'],
                        help='An event that is not told, identity.<kind>.<operation>; may be repeated. Telling of a login costs a '
                             'write to the database at each.'),
    ],
    'token': [
        cfg.IntOpt('expiration', default=3600, min=60, help='Seconds that a token is valid.'),
        cfg.IntOpt('allow_expired_window', default=172800, min=0,
                   help='Seconds after its end that a service may still validate a token with allow_expired, so that work '
                        'which began under it can finish.'),
        cfg.StrOpt('keys_path', help='Folder of the signing keys; <state_path>/identity/keys if unset.'),
        cfg.BoolOpt('allow_rescope_scoped_token', default=True, help='Let a scoped token be exchanged for another scope.'),
    ],
    'auth': [
        cfg.ListOpt('methods', default=['password', 'token', 'application_credential', 'totp', 'oauth1'],
                    help='Ways to authenticate that are offered; external is one more, for a web server that sets REMOTE_USER.'),
        cfg.IntOpt('receipt_expiration', default=300, min=10,
                   help='Seconds that a receipt of the first of several factors is valid.'),
    ],
    'identity': [
        cfg.IntOpt('argon2_memory', default=19456, min=8192, help='KiB of memory that hashing a password takes.'),
        cfg.IntOpt('argon2_passes', default=2, min=1, help='Passes over that memory.'),
        cfg.IntOpt('max_password_length', default=128, min=8, max=4096, help='Longest password that is accepted.'),
    ],
    'security_compliance': [
        cfg.IntOpt('lockout_failure_attempts', default=0, min=0,
                   help='Wrong passwords in a row after which a user is locked out; 0: never.'),
        cfg.IntOpt('lockout_duration', default=1800, min=0, help='Seconds that a lockout lasts; 0: until an operator ends it.'),
        cfg.IntOpt('disable_user_account_days_inactive', default=0, min=0,
                   help='Days without a login after which a user counts as disabled; 0: never.'),
        cfg.IntOpt('password_expires_days', default=0, min=0, help='Days that a password is valid; 0: for ever.'),
        cfg.IntOpt('unique_last_password_count', default=0, min=0,
                   help='How many of the newest passwords, the present one included, may not be used again.'),
        cfg.IntOpt('minimum_password_age', default=0, min=0,
                   help='Days that a password must be kept before its user may change it.'),
        cfg.StrOpt('password_regex', help='Regular expression that a new password must match.'),
        cfg.StrOpt('password_regex_description', default='', help='What that expression asks for, for people.'),
        cfg.BoolOpt('change_password_upon_first_use', default=False,
                    help='A password that an administrator set must be changed at its first use.'),
    ],
    'resource': [
        cfg.IntOpt('max_project_tree_depth', default=5, min=1, help='Levels of projects below a domain.'),
    ],
    'trust': [
        cfg.BoolOpt('allow_redelegation', default=False, help='Let a trust be delegated further.'),
        cfg.IntOpt('max_redelegation_count', default=3, min=0, help='How often.'),
    ],
    'credential': [
        cfg.IntOpt('user_limit', default=-1, help='Credentials a user may have, and application credentials; -1: any number.'),
    ],
    'oauth2': [
        cfg.ListOpt('oauth2_authn_methods', default=['tls_client_auth', 'client_secret_basic'],
                    help='How clients may authenticate at /v3/OS-OAUTH2/token: with a certificate (see [api] '
                         'client_certificate_header), or with the secret of an application credential.'),
        cfg.StrOpt('oauth2_cert_dn_mapping_id', default='oauth2_mapping',
                   help='The mapping that says whom the subject of a certificate names.'),
    ],
    'federation': [
        cfg.MultiStrOpt('trusted_dashboard', default=[], mutable=True,
                        help='URL of a dashboard that may be sent tokens of people who logged in through an identity provider. '
                             'May be repeated.'),
        cfg.StrOpt('saml_entity_id', help='What this cloud is called in SAML; the URL of its metadata, below [api] '
                                          'public_endpoint, if unset.'),
    ],
    'unified_limit': [
        cfg.StrOpt('enforcement_model', default='flat', choices=['flat', 'strict_two_level'],
                   help='How limits of a project and of its parent depend on each other.'),
    ],
}

#: Defaults of common options that differ here.
DEFAULTS = {
    ('api', 'bind_port'): 5000,
    ('keystone_authtoken', 'service_type'): 'identity',
    ('database', 'connection'): 'sqlite:////var/lib/kodiak/identity/identity.sqlite',
}
