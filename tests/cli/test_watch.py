"""Changes of source files are seen; other files, hidden folders and virtual environments are not."""

from cfqueue.cli.watch import Watch, sources


def test_what_counts_as_source(tmp_path):
    for name in ("app.py", "wrangler.toml", "wrangler.jsonc", "notes.txt", "queues.db"):
        (tmp_path / name).touch()
    for folder in (".git", "__pycache__", "env", "shop"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").touch()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    names = {path.removeprefix(f"{tmp_path}/") for path in sources(tmp_path)}
    assert names == {"app.py", "wrangler.toml", "wrangler.jsonc", "shop/a.py"}


def test_written_added_and_removed_files_are_changes(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    watch = Watch(tmp_path)
    assert watch.changed() == []
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").unlink()
    (tmp_path / "c.py").touch()
    (tmp_path / "d.txt").touch()
    assert watch.changed() == ["a.py", "b.py", "c.py"]
    assert watch.changed() == []
