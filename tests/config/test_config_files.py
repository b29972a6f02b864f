"""Reading a file, and what is said about one that cannot be read."""

import os
from pathlib import Path

import pytest

from cfqueue.config import ConfigurationWarning, find, load
from cfqueue.errors import ConfigurationError

TOML = """
[[queues.consumers]]
queue = "jobs"
max_retries = 5
"""
JSON = '{"queues": {"consumers": [{"queue": "jobs", "max_retries": 5}]}}'
JSONC = """
// A comment, and a comma too many:
{"queues": {"consumers": [{"queue": "jobs", "max_retries": 5,}],},}
"""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ={})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wrangler.toml", TOML),
        ("wrangler.json", JSON),
        ("wrangler.jsonc", JSONC),
        ("wrangler.json", JSONC),
        ("wrangler.toml", "\ufeff" + TOML),
        ("WRANGLER.TOML", TOML.replace("\n", "\r\n")),
    ],
)
def test_toml_json_and_jsonc_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    config = load(write(tmp_path, name, text), environ={})
    assert config.consumers["jobs"].max_retries == 5


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    path = os.fspath(write(tmp_path, "wrangler.toml", TOML))
    assert load(path, environ={}).source == path


def test_a_syntax_error_in_toml_names_file_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, "wrangler.toml", 'name = "shop"\n[[queues.consumers]]\nqueue = jobs\n')
    text = error_of(path)
    assert text.startswith(f"{path}, line 3, column 9: syntax error: Invalid value.")
    assert text.endswith("The line reads: queue = jobs")


def test_a_syntax_error_in_json_names_file_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, "wrangler.jsonc", '{\n  "queues": {\n    "consumers" [],\n  }\n}\n')
    text = error_of(path)
    assert text.startswith(f"{path}, line 3, column 17: syntax error:")
    assert '"consumers" [],' in text


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.toml", "name = ", 1),
        ("a.toml", "x = 1\nname =", 2),
        ("a.toml", "x = 1\nx = 2\n", 2),
        ("a.json", "", 1),
        ("a.jsonc", "{\n", 2),
        ("a.jsonc", '{"a": 1}\nx', 2),
        ("a.jsonc", '{"a": "b\n"}', 1),
    ],
)
def test_every_syntax_error_names_its_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    path = write(tmp_path, name, text)
    assert error_of(path).startswith(f"{path}, line {line}")


@pytest.mark.parametrize("name", ["a.toml", "a.json", "a.jsonc"])
def test_a_file_nested_too_deeply_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    text = error_of(write(tmp_path, name, f"a = {deep}" if name == "a.toml" else deep))
    assert text.startswith(str(tmp_path / name))


def test_a_number_with_thousands_of_digits_is_an_error_of_ours(tmp_path: Path) -> None:
    for name, text in [("a.toml", "a = " + "9" * 5_000), ("a.json", '{"a": ' + "9" * 5_000 + "}")]:
        assert error_of(write(tmp_path, name, text)).startswith(str(tmp_path / name))


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "wrangler.toml", b'a = 1\nname = "caf\xe9"\n')
    assert error_of(path) == f"{path}, line 2: not UTF-8 (byte 0xe9). Save it as UTF-8."


def test_a_missing_file_suggests_the_one_that_is_there(tmp_path: Path) -> None:
    write(tmp_path, "wrangler.jsonc", JSON)
    text = error_of(tmp_path / "wrangler.json")
    assert "there is no such configuration file. Did you mean 'wrangler.jsonc'?" in text


def test_a_file_in_a_missing_folder_is_missing(tmp_path: Path) -> None:
    assert "no such configuration file" in error_of(tmp_path / "nowhere" / "wrangler.toml")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "wrangler.toml").mkdir()
    assert "cannot be read" in error_of(tmp_path / "wrangler.toml")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    assert "ends in .toml, .jsonc or .json; this ends in '.yaml'" in error_of(tmp_path / "wrangler.yaml")


def test_a_list_is_not_a_configuration(tmp_path: Path) -> None:
    assert "it must hold a table" in error_of(write(tmp_path, "a.json", "[]"))


@pytest.mark.parametrize("comment", ["", "// a comment\n"])
def test_a_key_that_stands_twice_warns_once_and_the_last_counts(tmp_path: Path, comment: str) -> None:
    path = write(tmp_path, "a.jsonc", comment + '{"name": "one", "name": "two"}')
    with pytest.warns(ConfigurationWarning, match="the key 'name' stands twice") as caught:
        assert load(path, environ={}).name == "two"
    assert len(caught) == 1


def test_find_takes_the_file_that_wrangler_would_take(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    for name in ["wrangler.toml", "wrangler.jsonc", "wrangler.json"]:
        path = write(tmp_path, name, "")
        assert find(tmp_path) == path


def test_no_file_is_looked_for_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "wrangler.toml", TOML)
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).consumers == {}
