"""The work of block storage that takes more than a transaction."""
from . import snapshots, volumes

ALL = [*volumes.ALL, *snapshots.ALL]
