"""Storage policies: kinds of storage that a container can be made with."""
import dataclasses
import os

from ..erasure import Codec
from .file import Ring


@dataclasses.dataclass
class Policy:
    """One policy. ``ring`` is read when it is first asked for; ``codec`` is None where whole replicas are kept."""

    index: int
    name: str
    folder: str
    default: bool = False
    deprecated: bool = False
    aliases: tuple = ()
    codec: Codec | None = None
    keep: str | None = None
    _ring: Ring = None

    @property
    def ring(self):
        """Its ring of objects."""
        if self._ring is None:
            name = f'object-{self.index}.ring.gz' if self.index else 'object.ring.gz'
            ring = Ring(os.path.join(self.folder, name), self.keep)
            if self.codec is not None and ring.replica_count != self.codec.replicas:
                raise ValueError(f'{name} has {ring.replica_count} replicas; {self.codec.scheme} of the policy {self.name!r} needs '
                                 f'{self.codec.replicas}')
            self._ring = ring
        return self._ring

    @property
    def type(self):
        """``replication`` or ``erasure_coding``."""
        return 'replication' if self.codec is None else 'erasure_coding'


class Policies:
    """The policies of ``[storage] policies``, in their order.

    :param keep: see :class:`Ring`.
    :raises ValueError: one that is not ``index:name``, or an index or name that is there twice; an erasure code that there is not.
    """

    def __init__(self, conf, keep=None):
        self._policies, seen = [], set()
        for number, text in enumerate(conf.storage.policies):
            index, _, name = text.partition(':')
            name, coded, scheme = name.partition('=')
            if not index.isdigit() or not name.strip('-'):
                raise ValueError(f'{text!r} in [storage] policies is not index:name')
            deprecated, name = name.endswith('-'), name.rstrip('-')
            if index in seen or name.lower() in seen:
                raise ValueError(f'{text!r} in [storage] policies is there twice')
            seen |= {index, name.lower()}
            self._policies.append(Policy(int(index), name, conf.storage.ring_path, number == 0, deprecated,
                                         codec=Codec.of(scheme) if coded else None, keep=keep))

    def __iter__(self):
        return iter(self._policies)
