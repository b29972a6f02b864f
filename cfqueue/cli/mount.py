"""Which kind of file system a folder is on."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ncpfs",
    ]
)
_NETWORK_FUSE = frozenset({"sshfs", "s3fs", "glusterfs", "gcsfuse", "rclone"})


def file_system(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the file system's type as the kernel names it; None where it cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        # proc(5): ... (5) mount point ... - (9) file system type ...
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        point = Path(fields[4].replace(r"\040", " "))
        depth = len(point.parts)
        # A later mount on the same point hides an earlier one.
        if depth >= best and folder.resolve().is_relative_to(point):
            best, kind = depth, after.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether files of this type are on another machine."""
    return kind in _NETWORK or kind.removeprefix("fuse.") in _NETWORK_FUSE
