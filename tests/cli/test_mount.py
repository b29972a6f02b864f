"""The kind of file system comes from the deepest, latest mount."""

from pathlib import Path

from cfqueue.cli.mount import file_system, is_network

MOUNTS = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /srv rw - nfs4 server:/srv rw
31 30 254:2 / /srv/local\040disk rw - xfs /dev/sdb rw
32 30 0:50 / /srv/twice rw - xfs /dev/sdc rw
33 32 0:51 / /srv/twice rw - cifs //server/share rw
"""


def test_the_deepest_mount_decides(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    kinds = {
        path: file_system(Path(path), mounts)
        for path in ("/opt", "/srv/data", "/srv/local disk/x", "/srv/twice/x", "/srvother")
    }
    assert list(kinds.values()) == ["ext4", "nfs4", "xfs", "cifs", "ext4"]


def test_where_it_cannot_be_told_nothing_is_said(tmp_path):
    assert file_system(tmp_path, tmp_path / "nothing") is None


def test_network_kinds():
    assert [is_network(kind) for kind in ("nfs4", "cifs", "fuse.sshfs", "ext4", "tmpfs", "fuseblk")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
