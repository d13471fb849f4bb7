"""The work of compute that crosses services or waits for hosts: one module a saga, or a few that belong together."""
from kodiak.compute.sagas import boot, delete, refresh

ALL = [boot.SAGA, delete.SAGA, refresh.SAGA]
