"""The fault shape of block storage: one object named after its kind, with code and message."""
from kodiak.common.api.faults import body

__all__ = ['body']
