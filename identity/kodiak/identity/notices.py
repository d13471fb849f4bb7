"""Notifications: what changes in identity, told on the message bus (``[notifications] topics``) as consumers of Keystone's know it.

``identity.<kind>.<what>`` tells a change, in the basic format or as a CADF audit event (``notification_format``). Role assignments
(``identity.role_assignment.created``) and logins (``identity.authenticate``) are audit events in either format. Each is written in
the transaction that makes the change; of a login nothing is written, so telling of one costs a transaction of its own. What
``notification_opt_out`` names is not told. Ids and names are told, never a secret.
"""
import datetime
import uuid
import weakref

import flask
import sqlalchemy as sa
from oslo_context import context as oslo_context

from kodiak.common import outbox

from .models import services

EVENT = 'http://schemas.dmtf.org/cloud/audit/1.0/event'
USER = 'service/security/account/user'
FEDERATED = 'http://docs.oasis-open.org/security/saml/v2.0'
#: What CADF calls the kinds of things.
TYPES = {
    'group': 'data/security/group', 'project': 'data/security/project', 'role': 'data/security/role',
    'user': 'data/security/account/user', 'domain': 'data/security/domain', 'region': 'data/security/region',
    'endpoint': 'data/security/endpoint', 'service': 'data/security/service', 'policy': 'data/security/policy',
    'OS-TRUST:trust': 'data/security/trust', 'OS-OAUTH1:access_token': 'data/security/credential',
    'OS-OAUTH1:request_token': 'data/security/credential', 'OS-OAUTH1:consumer': 'data/security/account',
    'application_credential': 'data/security/credential', 'credential': 'data/security/credential',
}
#: The word that ``notification_opt_out`` may have for an outcome, beside CADF's own.
FAILED = {'failure': 'failed'}

_configured = weakref.WeakKeyDictionary()      # engine -> configuration


def configure(database, conf):
    """Tell what changes in ``database`` as ``conf`` says, once its outbox is announced."""
    _configured[database.engine] = conf


def tell(connection, kind, what, resource_id, actor=None):
    """Tell that something was ``created``, ``updated``, ``disabled`` or ``deleted``.

    :param kind: ``user``, ``project``, ...; a key of :data:`TYPES`, or another word.
    :param actor: ``(kind, id, 'added' or 'removed')`` of what came into a group or left it.
    """
    conf = _wanted(connection, f'identity.{kind}.{what}')
    if conf is None:
        return
    if conf.notification_format == 'cadf':
        payload = _audit(connection, f'{what}.{kind}', 'success', {'typeURI': TYPES.get(kind, 'unknown'), 'id': resource_id},
                         resource_info=resource_id)
    else:
        payload = {'resource_info': resource_id, **_ids()}
    if actor:
        payload.update(zip(('actor_type', 'actor_id', 'actor_operation'), actor, strict=True))
    _send(connection, f'identity.{kind}.{what}', payload, resource_id)


def assignment(connection, what, key):
    """Tell that a role was given (``created``) or taken away (``deleted``). :param key: the columns of the assignment."""
    if _wanted(connection, f'identity.role_assignment.{what}') is None:
        return
    target = key['target_id'] if key['target_kind'] != 'system' else 'all'
    payload = _audit(connection, f'{what}.role_assignment', 'success', {'typeURI': TYPES['user'], 'id': key['actor_id']},
                     role=key['role_id'], inherited_to_projects=key['inherited'],
                     **{key['actor_kind']: key['actor_id'], key['target_kind']: target})
    _send(connection, f'identity.role_assignment.{what}', payload, key['actor_id'])


def authenticated(core, outcome, user=None, reason=None, federation=None):
    """Tell of a login, where the operator has asked for it; in a transaction of its own.

    :param outcome: ``success``, ``failure``, or ``pending``: another factor is awaited.
    :param user: the row of who it is, or claims to be; None where that is nobody.
    :param reason: ``(HTTP status, sentence)``.
    :param federation: what the token says of the identity provider that has confirmed it.
    """
    if _silent(core.conf, core.db, f'identity.authenticate.{outcome}', f'identity.authenticate.{FAILED.get(outcome, outcome)}'):
        return
    user_id = user['id'] if user else None

    def store(connection):
        payload = _audit(connection, 'authenticate', outcome, {'typeURI': TYPES['user'], 'id': user_id or 'unknown'}, reason,
                         asker=user)
        if federation:
            payload['initiator']['credential'] = {
                'type': FEDERATED, 'identity_provider': federation['identity_provider']['id'], 'user': user_id,
                'groups': [group['id'] for group in federation['groups']]}
        _send(connection, 'identity.authenticate', payload, user_id)
    core.db.transact(store)


def refused(core, user, reason):
    """Tell of a password that was not changed, because of a rule of ``[security_compliance]``. It is an audit event only."""
    if core.conf.notification_format != 'cadf' or _silent(core.conf, core.db, 'identity.user.updated'):
        return

    def store(connection):
        payload = _audit(connection, 'updated.user', 'failure', {'typeURI': TYPES['user'], 'id': user['id']}, reason,
                         asker=user, resource_info=user['id'])
        _send(connection, 'identity.user.updated', payload, user['id'])
    core.db.transact(store)


def _wanted(connection, event_type):
    """The configuration, or None where this is not to be told."""
    if not outbox.announced(connection):
        return None
    conf = _configured[connection.engine]
    return None if event_type in conf.notification_opt_out else conf


def _silent(conf, database, *event_types):
    # A Database knows its engine as a connection does.
    return not outbox.announced(database) or any(each in conf.notification_opt_out for each in event_types)


def _send(connection, event_type, payload, resource_id):
    outbox.notify(connection, event_type, payload, oslo_context.get_current(), resource_id)


def _ids():
    """The ids of the request that is being answered."""
    context = oslo_context.get_current()
    if context is None:
        return {}
    return {name: getattr(context, name) for name in ('request_id', 'global_request_id') if getattr(context, name)}


def _audit(connection, action, outcome, target, reason=None, asker=None, **more):
    observer = connection.execute(sa.select(services.c.id).where(services.c.type == 'identity').order_by(services.c.id)).scalar()
    found = {'typeURI': EVENT, 'eventType': 'activity', 'id': str(uuid.uuid4()),
             'eventTime': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%S.%f%z'),
             'action': action, 'outcome': outcome, 'initiator': _initiator(asker), 'target': target,
             'observer': {'typeURI': 'service/security', 'id': observer or 'identity'}, **more}
    if reason:
        found['reason'] = {'reasonCode': str(reason[0]), 'reasonType': reason[1]}
    return found


def _initiator(user):
    """Who asks, and from where: of a login the user that it is about."""
    found = {'typeURI': USER, **_ids()}
    context = oslo_context.get_current()
    if flask.has_request_context():
        found['host'] = {'address': flask.request.remote_addr, 'agent': flask.request.headers.get('User-Agent', '')[:255]}
    if user is not None:
        return {**found, 'id': user['id'], 'user_id': user['id'], 'username': user['name']}
    if context is None or context.user_id is None:
        return {**found, 'id': 'unknown' if flask.has_request_context() else 'identity'}
    found.update(id=context.user_id, user_id=context.user_id, username=context.user_name)
    found.update({name: getattr(context, name) for name in ('project_id', 'domain_id') if getattr(context, name)})
    return found
