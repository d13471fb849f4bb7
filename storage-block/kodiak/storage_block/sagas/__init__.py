"""The work of block storage that takes more than a transaction."""
from . import backups, groups, manage, moves, snapshots, volumes

ALL = [*volumes.ALL, *snapshots.ALL, *moves.ALL, *backups.ALL, *groups.ALL, *manage.ALL]
