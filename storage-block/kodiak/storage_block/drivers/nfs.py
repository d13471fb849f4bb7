"""Volumes as sparse files on an NFS share, which several hosts may have mounted.

Where the server speaks NFS 4.2 and its file system can share blocks, clones and snapshots are made by it without copying.
"""
import os

from kodiak.storage_block.drivers import base
from kodiak.storage_block.drivers.file import FileDriver


class NfsDriver(FileDriver):
    """The driver ``nfs``. Its section: ``location`` (host:/path), mounted at ``path`` unless it is already."""

    needs_root = True

    def start(self):
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if not os.path.ismount(self.folder):
            from kodiak.storage_block.drivers import root
            status, complaint = root.mount_nfs(self.options.location, self.folder)
            if status:
                raise base.Fault('back-end', f'{self.options.location} cannot be mounted: {complaint.strip()[:200]}')
        super().start()
