"""The demo reads RECORD files as they are and damages only its own copy."""

import pytest

from cfqueue.cli.demo_files import (
    Distribution,
    ListedFile,
    damaged_copy,
    finding,
    installed,
    record_entries,
    sha256_of,
    within,
)


def test_only_lines_with_a_sha256_count():
    record = (
        '"a, b.py",sha256=Zm9v,3\n'
        "pkg/__pycache__/a.pyc,,\n"
        "pkg/RECORD,,\n"
        "old.py,md5=abc,1\n"
        "nosize.py,sha256=YmFy,\n"
        "\n"
    )
    assert list(record_entries(record)) == [("a, b.py", "Zm9v", 3), ("nosize.py", "YmFy", 0)]


def test_the_sha256_is_written_as_record_writes_it(tmp_path):
    file = tmp_path / "empty"
    file.touch()
    assert sha256_of(str(file)) == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def test_what_is_found(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    digest = sha256_of(str(file))
    assert finding(str(file), digest) == "intact"
    file.write_bytes(b"c0ntent")
    assert finding(str(file), digest) == "content differs"
    file.unlink()
    assert finding(str(file), digest) == "missing"
    assert finding(str(tmp_path), digest).startswith("unreadable: ")


def test_celery_is_among_the_installed_distributions():
    names = [each.name for each in installed()]
    assert any(name.startswith("celery ") for name in names)
    assert names == sorted(names, key=str.lower)


def distribution(name, count, size=1):
    return Distribution(name, tuple(ListedFile(name, f"{n}.py", "", "", size) for n in range(count)))


def test_a_limit_takes_whole_distributions_smallest_first():
    everything = [distribution("a", 10), distribution("b", 2), distribution("c", 3)]
    assert [each.name for each in within(everything, 6)] == ["b", "c"]
    assert within(everything, 0) == everything
    assert [each.name for each in within([*everything, distribution("d", 1, 10**9)], 100)] == ["a", "b", "c"]


def test_the_damaged_copy_has_three_files_that_fail_and_one_that_recovers(tmp_path):
    copy = damaged_copy(installed(), tmp_path)
    found = {file.path: finding(file.location, file.sha256) for file in copy.files}
    assert found[copy.changed.path] == "content differs"
    assert found[copy.removed.path] == found[copy.late.path] == "missing"
    assert sorted(found.values()).count("intact") == len(copy.files) - 3
    copy.deliver_late_file()
    assert finding(copy.late.location, copy.late.sha256) == "intact"
    assert all(file.location.startswith(str(tmp_path)) for file in copy.files)


def test_without_a_fit_package_it_says_so(tmp_path):
    with pytest.raises(LookupError, match="No installed package"):
        damaged_copy([distribution("a", 2)], tmp_path)
