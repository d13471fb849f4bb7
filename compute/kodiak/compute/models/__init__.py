"""Tables of the compute service, on one ``metadata``: servers and what belongs to them, and Placement's."""
from . import placement
from .base import metadata

__all__ = ['metadata', 'placement']
