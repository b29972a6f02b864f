"""What the demo checks: the files of every installed package, and one copy damaged on purpose.

Pure reading and copying; nothing here knows about queues.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

#: The package that is copied and damaged: small, and always there, because Celery needs it.
DAMAGED_PACKAGE = "vine"
#: Largest sum of file sizes that one run reads, in bytes; a machine-learning environment has gigabytes.
MAX_BYTES = 512_000_000
_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One line of a RECORD: a file and the sha256 its package was published with."""

    distribution: str
    path: str
    location: str
    #: As RECORD writes it: URL-safe base64 without padding.
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed package with the files that can be checked."""

    name: str
    files: tuple[ListedFile, ...]

    @property
    def size(self) -> int:
        """Bytes in all its files, as recorded."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class DamagedCopy:
    """A copy of a package with three files that fail: one for good, one for good, one for a while."""

    files: tuple[ListedFile, ...]
    changed: ListedFile
    removed: ListedFile
    late: ListedFile
    late_content: bytes

    def deliver_late_file(self) -> None:
        """Write the file that was held back."""
        Path(self.late.location).write_bytes(self.late_content)


def record_entries(record: str) -> Iterator[tuple[str, str, int]]:
    """Path, sha256 and size of every line of a RECORD that carries a sha256.

    RECORD itself and compiled files carry none. The file is read here and not through
    ``Distribution.files``, which since Python 3.12 leaves out files that are missing on disk.
    """
    for row in csv.reader(record.splitlines()):
        if len(row) < 2:
            continue
        algorithm, _, digest = row[1].partition("=")
        if algorithm == "sha256" and digest:
            size = int(row[2]) if len(row) > 2 and row[2].isdigit() else 0
            yield row[0], digest, size


def installed() -> list[Distribution]:
    """Every installed distribution that has files to check, by name."""
    found: dict[tuple[str, str], Distribution] = {}
    for distribution in metadata.distributions():
        record = distribution.read_text("RECORD")
        # A broken installation can have metadata without a name; there is nothing to check then.
        name = distribution.metadata["Name"]
        if record is None or not name:
            continue
        label = f"{name} {distribution.version}"
        files = tuple(
            ListedFile(label, path, str(distribution.locate_file(path)), digest, size)
            for path, digest, size in record_entries(record)
        )
        if files:
            # The same folder can stand twice on sys.path.
            found.setdefault((label, files[0].location), Distribution(label, files))
    return sorted(found.values(), key=lambda each: each.name.lower())


def within(distributions: list[Distribution], limit: int) -> list[Distribution]:
    """Whole distributions, smallest first, with at most ``limit`` files and ``MAX_BYTES`` in all.

    ``limit`` 0 takes everything.
    """
    if limit == 0:
        return distributions
    chosen: list[Distribution] = []
    files = size = 0
    for each in sorted(distributions, key=lambda each: len(each.files)):
        if files + len(each.files) > limit or size + each.size > MAX_BYTES:
            continue
        chosen.append(each)
        files += len(each.files)
        size += each.size
    return sorted(chosen, key=lambda each: each.name.lower())


def sha256_of(location: str) -> str:
    """Return the sha256 of a file, written as RECORD writes it."""
    digest = hashlib.sha256()
    with Path(location).open("rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode("ascii")


def finding(location: str, sha256: str) -> str:
    """``"intact"``, or what is wrong with the file, in a few words."""
    try:
        actual = sha256_of(location)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return "intact" if actual == sha256 else "content differs"


def damaged_copy(distributions: list[Distribution], folder: Path) -> DamagedCopy:
    """Copy a small package into ``folder`` and damage three of its modules.

    One byte of the first is changed, the second is removed, and the third is held back until
    ``deliver_late_file``. The installed package itself is only read.
    """
    source = _smallest(distributions)
    copies: list[ListedFile] = []
    for file in source.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(file.location).read_bytes())
        copies.append(
            ListedFile(f"{source.name} (damaged copy)", file.path, str(target), file.sha256, file.size)
        )
    changed, removed, late = _modules(copies)[-3:]
    path = Path(changed.location)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Path(removed.location).unlink()
    late_path = Path(late.location)
    late_content = late_path.read_bytes()
    late_path.unlink()
    return DamagedCopy(tuple(copies), changed, removed, late, late_content)


def _modules(files: list[ListedFile] | tuple[ListedFile, ...]) -> list[ListedFile]:
    return [file for file in files if file.path.endswith(".py") and file.size > 0]


def _smallest(distributions: list[Distribution]) -> Distribution:
    """Return the usual package, or the smallest other one that is intact and inside its own folder."""
    fit = [
        each
        for each in distributions
        if len(_modules(each.files)) >= 3
        and not any(file.path.startswith(("..", "/")) for file in each.files)
    ]
    fit.sort(key=lambda each: (not each.name.startswith(f"{DAMAGED_PACKAGE} "), each.size))
    for each in fit:
        if all(finding(file.location, file.sha256) == "intact" for file in each.files):
            return each
    raise LookupError("No installed package with three intact modules was found to make a damaged copy of.")
