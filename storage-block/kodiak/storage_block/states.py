"""The life cycles of volumes, snapshots, backups and groups, as tables: what is transient, where it leads, how long it may take."""
import dataclasses

AVAILABLE, IN_USE, ERROR, CREATING, DELETING = 'available', 'in-use', 'error', 'creating', 'deleting'
RESERVED, ATTACHING, DETACHING = 'reserved', 'attaching', 'detaching'
MAINTENANCE, AWAITING_TRANSFER = 'maintenance', 'awaiting-transfer'
EXTENDING, UPLOADING, RETYPING, REVERTING = 'extending', 'uploading', 'retyping', 'reverting'
BACKING_UP, DOWNLOADING = 'backing-up', 'downloading'
RESTORING, RESTORING_BACKUP, MANAGING, UNMANAGING = 'restoring', 'restoring-backup', 'managing', 'unmanaging'
ERROR_DELETING, ERROR_EXTENDING, ERROR_RESTORING = 'error_deleting', 'error_extending', 'error_restoring'
ERROR_MANAGING = 'error_managing'
ERROR_ATTACHING, ERROR_UNMANAGING, UPDATING = 'error_attaching', 'error_unmanaging', 'updating'

#: As ``late``: what its attachments say that it is.
AS_ATTACHED = None


@dataclasses.dataclass(frozen=True)
class Transient:
    """A status in which something is being done.

    :param target: the status that it leads to ('' for gone). :param deadline: seconds that it may take.
    :param late: the status of what is still in it then, and nobody works on.
    """

    target: str
    deadline: int
    late: str | None


HOUR = 3600
VOLUME = {
    CREATING: Transient(AVAILABLE, 2 * HOUR, ERROR),
    DELETING: Transient('', HOUR, ERROR_DELETING),
    DOWNLOADING: Transient(AVAILABLE, 2 * HOUR, ERROR),
    EXTENDING: Transient(AVAILABLE, 600, ERROR_EXTENDING),
    ATTACHING: Transient(IN_USE, 900, ERROR_ATTACHING),
    DETACHING: Transient(AVAILABLE, 900, AS_ATTACHED),
    UPLOADING: Transient(AVAILABLE, 2 * HOUR, AS_ATTACHED),
    BACKING_UP: Transient(AVAILABLE, 4 * HOUR, AS_ATTACHED),
    RESTORING_BACKUP: Transient(AVAILABLE, 4 * HOUR, ERROR_RESTORING),
    RETYPING: Transient(AVAILABLE, 2 * HOUR, AS_ATTACHED),
    REVERTING: Transient(AVAILABLE, HOUR, ERROR),
    MANAGING: Transient(AVAILABLE, 600, ERROR_MANAGING),
    UNMANAGING: Transient('', 600, ERROR_UNMANAGING),
}
SNAPSHOT = {
    CREATING: Transient(AVAILABLE, HOUR, ERROR),
    DELETING: Transient('', HOUR, ERROR_DELETING),
    BACKING_UP: Transient(AVAILABLE, 4 * HOUR, AVAILABLE),
    RESTORING: Transient(AVAILABLE, HOUR, AVAILABLE),
    MANAGING: Transient(AVAILABLE, 600, ERROR_MANAGING),
    UNMANAGING: Transient('', 600, ERROR_UNMANAGING),
}
BACKUP = {
    CREATING: Transient(AVAILABLE, 4 * HOUR, ERROR),
    RESTORING: Transient(AVAILABLE, 4 * HOUR, AVAILABLE),
    DELETING: Transient('', HOUR, ERROR_DELETING),
}
GROUP = {
    CREATING: Transient(AVAILABLE, 2 * HOUR, ERROR),
    DELETING: Transient('', 2 * HOUR, ERROR_DELETING),
    UPDATING: Transient(AVAILABLE, 600, ERROR),
}
OF = {'volumes': VOLUME, 'snapshots': SNAPSHOT, 'backups': BACKUP, 'volume_groups': GROUP, 'group_snapshots': GROUP}

#: Statuses in which a volume may be deleted.
DELETABLE = (AVAILABLE, ERROR, ERROR_RESTORING, ERROR_EXTENDING, ERROR_MANAGING)
#: What an operator may set a volume to.
SETTABLE = (CREATING, AVAILABLE, DELETING, ERROR, ERROR_DELETING, ERROR_MANAGING, MANAGING, ATTACHING, DETACHING, IN_USE,
            MAINTENANCE, ERROR_ATTACHING, RESERVED, AWAITING_TRANSFER, EXTENDING, ERROR_EXTENDING, RETYPING,
            RESTORING_BACKUP, ERROR_RESTORING, BACKING_UP, UPLOADING, REVERTING)


def deadline(table, status):
    """Seconds that a row of a table may stay in a status, or None if it may stay for ever."""
    found = OF.get(table, {}).get(status)
    return None if found is None else found.deadline


def of_attachments(statuses):
    """The status of a volume whose attachments have these statuses."""
    for attachment, volume in (('attached', IN_USE), ('detaching', DETACHING), ('attaching', ATTACHING), ('reserved', RESERVED)):
        if attachment in statuses:
            return volume
    return AVAILABLE
