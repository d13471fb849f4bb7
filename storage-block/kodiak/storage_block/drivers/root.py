"""What drivers need root for, run in the agent's privileged daemon: LVM's commands, and mounting NFS."""
import os
import re
import subprocess

from kodiak.common import privileged

context = privileged.context(__name__, capabilities=['CAP_SYS_ADMIN', 'CAP_DAC_OVERRIDE', 'CAP_CHOWN', 'CAP_FOWNER', 'CAP_MKNOD'])

COMMANDS = ('lvs', 'lvcreate', 'lvremove', 'lvrename', 'lvextend')
ARGUMENT = re.compile(r'-{0,2}[A-Za-z0-9_+.][A-Za-z0-9_+.,/-]*')
SHARE = re.compile(r'[A-Za-z0-9_.:\[\]-]+:/[A-Za-z0-9_./-]*')


@context.entrypoint
def lvm(command, *args):
    """Run one of LVM's commands: (exit status, output, complaint). :raises ValueError: it is none of those allowed."""
    if command not in COMMANDS or not all(ARGUMENT.fullmatch(arg) for arg in args):
        raise ValueError(f'{command} {" ".join(args)} is not for the agent')
    done = subprocess.run([command, *args], capture_output=True, text=True, check=False, timeout=300, env={
        'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C'})
    return done.returncode, done.stdout, done.stderr


@context.entrypoint
def mount_nfs(share, path):
    """Mount an NFS share at a folder: (exit status, complaint)."""
    if not SHARE.fullmatch(share) or not os.path.isabs(path) or os.path.islink(path):
        raise ValueError(f'{share} at {path} is not for the agent')
    done = subprocess.run(['mount', '-t', 'nfs', '-o', 'nosuid,nodev,noexec,noatime', share, path], capture_output=True,
                          text=True, check=False, timeout=120)
    return done.returncode, done.stderr
