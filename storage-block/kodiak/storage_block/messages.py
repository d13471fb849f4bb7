"""Messages to users: why something that they asked for did not come about."""
import datetime

from kodiak.common import db

from . import store
from .models import messages

#: action -> (id, what was being done)
ACTIONS = {
    'schedule': ('001', 'schedule allocate volume'), 'attach': ('002', 'attach volume'),
    'upload': ('003', 'copy volume to image'), 'update_attachment': ('004', 'update attachment'),
    'image': ('005', 'copy image to volume'), 'unmanage': ('006', 'unmanage volume'), 'extend': ('007', 'extend volume'),
    'create': ('008', 'create volume from backend storage'), 'snapshot': ('009', 'create snapshot'),
    'snapshot_delete': ('010', 'delete snapshot'), 'backup': ('013', 'create backup'), 'backup_delete': ('014', 'delete backup'),
    'restore': ('015', 'restore backup'), 'reimage': ('016', 'reimage volume'), 'delete': ('017', 'delete volume'),
    'retype': ('018', 'retype volume'), 'migrate': ('019', 'migrate volume'), 'revert': ('020', 'revert volume to snapshot'),
    'manage': ('021', 'manage volume'), 'group': ('022', 'change group'),
}
UNKNOWN, NO_BACKEND = '001', '002'


def add(connection, conf, row, action, text, kind='VOLUME', detail=UNKNOWN, request_id=None):
    """Tell the owner of ``row`` why ``action`` (a name of :data:`ACTIONS`) failed; ``text`` is a sentence without secrets."""
    action_id, what = ACTIONS[action]
    store.insert(connection, messages, {
        'project_id': row['project_id'], 'request_id': request_id, 'resource_type': kind, 'resource_uuid': row['id'],
        'action_id': action_id, 'detail_id': detail, 'message_level': 'ERROR', 'text': f'{what}: {text}',
        'expires_at': db.utcnow() + datetime.timedelta(days=conf.storage_block.message_days)})


def event_id(row):
    """The id of the kind of event that a message is about."""
    return f'VOLUME_{row["resource_type"]}_{row["action_id"]}_{row["detail_id"]}'
