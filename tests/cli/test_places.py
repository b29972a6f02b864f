"""The folders that the demo makes: a new one each time, the newest stay."""

import pytest

from cfqueue.cli.places import KEPT, fresh_folder, in_use, is_cleaned_up, remove_older


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path))
    return tmp_path


def older(home, *days):
    for day in days:
        folder = home / f"demo-202601{day:02}-120000"
        folder.mkdir()
        (folder / "results.db").touch()
        yield folder


def test_two_at_the_same_second_have_different_names(home):
    first, second = fresh_folder("demo"), fresh_folder("demo")
    assert first != second
    assert is_cleaned_up(first)
    assert is_cleaned_up(second)


def test_the_newest_stay(home):
    folders = list(older(home, 1, 2, 3, 4))
    new = fresh_folder("demo")
    assert sorted(remove_older(new)) == folders[:2]
    assert sorted(home.iterdir()) == sorted([*folders[2:], new])
    assert len(list(home.iterdir())) == KEPT


def test_what_is_in_use_or_something_else_is_left(home, tmp_path_factory):
    used, gone, *_ = older(home, 1, 2, 3, 4)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (home / "demo-20250101-000000").symlink_to(elsewhere)
    (home / "demo-of-mine").mkdir()
    (home / "queues.db").touch()
    with in_use(used):
        assert remove_older(fresh_folder("demo")) == [gone]
    assert used.exists()
    assert elsewhere.exists()
    assert (home / "demo-20250101-000000").is_symlink()
    assert (home / "demo-of-mine").exists()


def test_where_there_is_no_home_the_folder_is_a_temporary_one(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = fresh_folder("demo")
    assert not is_cleaned_up(folder)
    assert remove_older(folder) == []
    assert folder.exists()
