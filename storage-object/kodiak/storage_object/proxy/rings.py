"""The rings of a proxy: looked at again every few seconds."""
import os
import time


class Watched:
    """A ring that is read again when its file changes."""

    EVERY = 5

    def __init__(self, ring):
        self._ring = ring
        self._looked = time.monotonic()

    def __getattr__(self, name):
        now = time.monotonic()
        if now - self._looked > self.EVERY:
            self._looked = now
            self._ring.reload_if_changed()
        return getattr(self._ring, name)


class Rings:
    """``account`` and ``container`` rings and the storage policies with theirs.

    :param policies: a sequence of policies, each with ``index``, ``name``, ``aliases``, ``default``, ``deprecated``, ``ring``.
    """

    def __init__(self, account, container, policies):
        self.account, self.container = Watched(account), Watched(container)
        self.policies = {policy.index: policy for policy in policies}
        self._objects = {policy.index: Watched(policy.ring) for policy in policies}
        self.default_policy = next(policy for policy in policies if policy.default)

    @classmethod
    def load(cls, folder, policies, ring_class):
        """From ``<folder>/account.ring.gz`` and ``container.ring.gz``."""
        return cls(ring_class(os.path.join(folder, 'account.ring.gz')), ring_class(os.path.join(folder, 'container.ring.gz')),
                   policies)

    def object(self, index):
        """The ring of a policy."""
        return self._objects[index]

    def codec(self, index):
        """The erasure code of a policy; None where whole replicas are kept."""
        return self.policies[index].codec

    def policy_named(self, name):
        """The policy of a name or alias, whatever its case; None if there is none."""
        for policy in self.policies.values():
            if name.lower() in {policy.name.lower(), *(alias.lower() for alias in policy.aliases)}:
                return policy
        return None
