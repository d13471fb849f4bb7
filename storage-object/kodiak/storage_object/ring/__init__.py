"""The ring: which devices hold a partition, and to which partition a name belongs."""
from .file import Ring
from .policies import Policies, Policy

__all__ = ['Policies', 'Policy', 'Ring']
