"""Options of a domain: where its users live (``ldap``), how they are driven (``identity``)."""
import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import domain_options as options
from ..models import projects
from . import kit, rules

routes = api.Routes('domain configuration', '/v3')

BODY = {'type': 'object', 'properties': {'config': {'type': 'object'}}, 'required': ['config']}
ANSWER = schema.wrap('config', {'type': 'object'})


def load(req, domain_id, group=None, option=None):
    """Check domain, group and option."""
    with req.db.read() as connection:
        if connection.execute(sa.select(projects.c.id).where(projects.c.id == domain_id,
                                                             projects.c.is_domain.is_(True))).first() is None:
            if group == 'security_compliance':
                raise errors.NotFound(f'Could not find domain: {domain_id}.')
            kit.missing(req, f'Could not find domain: {domain_id}.')
    if req.endpoint.method != 'GET' or group != 'security_compliance':
        options.check(group, option)
    return {}


def _read(req, domain_id, group=None, option=None, secrets=False):
    with req.db.read() as connection:
        found = options.read(cores.of(req), connection, domain_id, secrets)
    if group is not None:
        found = {group: found[group]} if group in found else {}
    if option is not None:
        found = {option: found[group][option]} if group in found and option in found[group] else {}
    if not found:
        where = ''.join(f', {kind} {name}' for kind, name in (('group', group), ('option', option)) if name)
        raise errors.NotFound(f'Could not find configuration for domain {domain_id}{where}.')
    return found


def _declare(path):
    item = '/domains/{domain_id}/config' + path

    @routes.get(item, rule='identity:get_domain_config', default=rules.READ, load=load, response=ANSWER, late=True,
                summary='Show options of a domain')
    def show(req, domain_id, group=None, option=None):
        if group == 'security_compliance':
            # What a password must look like is for everybody to know.
            req.authorize(rule='identity:get_security_compliance_domain_config')
            return {'config': _public(req, option)}
        req.authorize()
        return {'config': _read(req, domain_id, group, option)}

    @routes.patch(item, rule='identity:update_domain_config', default=rules.ADMIN, load=load, body=BODY, response=ANSWER,
                  summary='Change options of a domain')
    def update(req, domain_id, group=None, option=None):
        config = req.body['config']
        if option is not None:
            config = {group: config[group]} if isinstance(config.get(group), dict) else {group: config}
            if set(config[group]) != {option}:
                raise errors.Forbidden(f'Invalid domain specific configuration: the body must name the option {option} alone.')
        elif group is not None and set(config) != {group}:
            raise errors.Forbidden(f'Invalid domain specific configuration: the body must name the group {group} alone.')
        options.validate(config)
        if group is not None:
            _read(req, domain_id, group, option, secrets=True)
        core = cores.of(req)
        core.db.transact(lambda connection: options.write(core, connection, domain_id, config))
        return {'config': _read(req, domain_id)}

    @routes.delete(item, rule='identity:delete_domain_config', default=rules.ADMIN, load=load, summary='Delete options of a domain')
    def delete(req, domain_id, group=None, option=None):
        if group is not None:
            _read(req, domain_id, group, option, secrets=True)
        core = cores.of(req)

        def remove(connection):
            options.remove(connection, domain_id, group, option)
            core.directories.configured(connection, domain_id)
        core.db.transact(remove)


for _path in ('', '/{group}', '/{group}/{option}'):
    _declare(_path)


@routes.put('/domains/{domain_id}/config', rule='identity:create_domain_config', default=rules.ADMIN, load=load, body=BODY,
            response=ANSWER, summary='Set the options of a domain')
def create(req, domain_id):
    """Replace all options of a domain: 201 if there were none, else 200."""
    config = req.body['config']
    options.validate(config)
    core = cores.of(req)

    def store(connection):
        had = options.remove(connection, domain_id)
        options.write(core, connection, domain_id, config)
        return had
    had = core.db.transact(store)
    return api.Response({'config': _read(req, domain_id)}, status=200 if had else 201)


def _public(req, option):
    conf = req.app.conf.security_compliance
    found = {'password_regex': conf.password_regex, 'password_regex_description': conf.password_regex_description}
    if option is not None:
        if option not in found:
            raise errors.Forbidden(f'The option {option} of group security_compliance is not shown.')
        return {option: found[option]}
    return {'security_compliance': found}


def _default(path):
    @routes.get('/domains/config' + path + '/default', rule='identity:get_domain_config_default', default=rules.READ,
                response=ANSWER,
                summary='Show defaults of the options of domains')
    def show(req, group=None, option=None):
        options.check(group, option)
        found = options.DEFAULTS if group is None else {group: options.DEFAULTS[group]}
        if option is not None:
            found = {option: options.DEFAULTS[group].get(option)}
        return {'config': found}


for _path in ('', '/{group}', '/{group}/{option}'):
    _default(_path)

RULES = [('identity:get_security_compliance_domain_config', rules.ANYBODY, 'What the passwords of a domain must look like')]
