"""The work of compute that crosses services or waits for hosts: one module a saga, or a few that belong together."""
from kodiak.compute.sagas import boot, delete, interface, move, rebuild, refresh, relocate, snapshot, swap, volumes

ALL = [boot.SAGA, boot.WITH_VOLUMES, delete.SAGA, refresh.SAGA, move.MOVE, move.CONFIRM, move.REVERT, move.EVACUATE,
       snapshot.SNAPSHOT, snapshot.SHELVE, snapshot.OFFLOAD, snapshot.UNSHELVE, snapshot.UNSHELVE_HERE, snapshot.FORGET,
       interface.ATTACH, interface.DETACH, volumes.ATTACH, volumes.DETACH, volumes.EXTEND, volumes.FORGET,
       rebuild.REBUILD, swap.SWAP, relocate.FOLLOW]
