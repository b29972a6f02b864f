"""The table of settings against any value that there is."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cfqueue.config import ConfigurationWarning, ConsumerConfig, consumer_settings, load
from cfqueue.config.checks import check
from cfqueue.config.model import Config
from cfqueue.config.names import dead_letter_name, is_queue_name, queue_name_like
from cfqueue.config.reference import as_markdown, written_as
from cfqueue.config.settings import APPLICATION, CONSUMER, QUEUE, Setting
from cfqueue.errors import CFQueueError, ConfigurationError
from cfqueue.limits import Limits

EVERY = [*CONSUMER.values(), *QUEUE.values(), *APPLICATION.values()]
INTEGERS = [setting for setting in EVERY if setting.kind == "integer"]
NUMBERS = [setting for setting in EVERY if setting.kind == "number"]

a_name = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", fullmatch=True)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def complaint(action: Callable[[], object]) -> str | None:
    """What configuration says about it, as an error or (an error in these tests) a warning."""
    try:
        action()
    except (ConfigurationError, ConfigurationWarning) as said:
        return str(said)
    return None


def refused(setting: Setting, value: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check(setting, value, "here")
    return str(caught.value)


@given(setting=st.sampled_from(INTEGERS), data=st.data())
def test_a_whole_number_in_range_is_taken_as_it_is(setting: Setting, data: st.DataObject) -> None:
    value = data.draw(st.integers(setting.minimum, setting.maximum))
    assert check(setting, value, "here") == value


@given(setting=st.sampled_from(INTEGERS), value=st.integers())
def test_a_whole_number_out_of_range_is_refused_with_the_range(setting: Setting, value: int) -> None:
    assume(not setting.minimum <= value <= setting.maximum)
    assert f"from {setting.minimum:,} to {setting.maximum:,}" in refused(setting, value)


@pytest.mark.parametrize("setting", INTEGERS, ids=lambda setting: setting.name)
def test_the_ends_of_a_range_belong_to_it_and_their_neighbours_do_not(setting: Setting) -> None:
    for good in (setting.minimum, setting.maximum):
        assert check(setting, good, "here") == good
    for bad in (setting.minimum - 1, setting.maximum + 1):
        refused(setting, bad)


@given(
    setting=st.sampled_from(INTEGERS),
    value=st.booleans() | st.floats() | st.text() | st.lists(st.integers()) | st.binary(),
)
def test_what_is_not_a_whole_number_is_never_taken_for_one(setting: Setting, value: object) -> None:
    refused(setting, value)


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("value", [0, -1, 0.0, True, math.nan, math.inf, -math.inf, "5", 604_801])
def test_a_time_limit_is_a_finite_number_above_nothing(setting: Setting, value: object) -> None:
    refused(setting, value)
    assert check(setting, 0.5, "here") == 0.5


@pytest.mark.parametrize(
    ("value", "guess"),
    [
        ("10", "10, without quotes"),
        (10.0, "10, without a fraction"),
        (5_000, "5 (seconds, not milliseconds)"),
        (5_001, None),
        (10.5, None),
        ("ten", None),
        (True, None),
        (10**400, None),
        ("9" * 5_000, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_an_error_guesses_what_was_meant(value: Any, guess: str | None) -> None:
    text = refused(CONSUMER["max_batch_timeout"], value)
    assert text.endswith(f"Did you mean {guess}?" if guess else "from 0 to 60.")


def test_a_value_that_cannot_be_printed_is_still_refused() -> None:
    assert "is a int that cannot be printed; it must be" in refused(CONSUMER["max_retries"], 10**5_000)


def test_a_long_value_is_printed_short() -> None:
    assert len(refused(CONSUMER["max_retries"], "x" * 100_000)) < 300


@given(value=anything, setting=st.sampled_from(EVERY))
def test_any_value_is_taken_or_refused_with_its_place(setting: Setting, value: object) -> None:
    said = complaint(lambda: check(setting, value, "wrangler.toml: the.key", limits=Limits()))
    assert said is None or (said.startswith("wrangler.toml: the.key is ") and "it must be" in said)


@given(keywords=st.dictionaries(st.sampled_from([*CONSUMER, "nonsense"]), anything, max_size=3))
def test_any_keywords_settle_within_the_ranges_or_raise_an_error_of_ours(keywords: dict[str, Any]) -> None:
    try:
        settings = consumer_settings(Config(), "jobs", keywords)
    except CFQueueError:
        return
    for name, setting in CONSUMER.items():
        value = getattr(settings, name)
        assert (value is None and setting.none) or check(setting, value, name) == value


@given(entry=st.dictionaries(st.sampled_from(["queue", "type", *CONSUMER]), anything))
def test_any_consumer_in_a_file_loads_or_raises_an_error_of_ours(entry: dict[str, Any]) -> None:
    said = complaint(lambda: load({"queues": {"consumers": [entry]}}, environ={}))
    assert said is None or said.startswith("config: queues.consumers[0]")


@given(value=anything)
def test_any_queues_table_loads_or_raises_an_error_of_ours(value: Any) -> None:
    for queues in (value, {"consumers": value}, {"producers": value}):
        said = complaint(partial(load, {"queues": queues}, environ={}))
        assert said is None or said.startswith("config: queues")


@given(name=a_name)
def test_a_default_dead_letter_queue_has_a_good_name_of_its_own(name: str) -> None:
    assert is_queue_name(name)
    dead = dead_letter_name(name)
    assert is_queue_name(dead)
    assert dead != name
    assert dead.endswith("-dlq")
    assert (dead == f"{name}-dlq") == (len(name) <= 59)
    assert ConsumerConfig(name).dead_letter_queue == dead


def test_long_names_that_begin_alike_do_not_share_a_dead_letter_queue() -> None:
    assert dead_letter_name("q" * 62 + "a") != dead_letter_name("q" * 62 + "b")


@given(name=st.text())
def test_a_guessed_queue_name_is_a_good_one(name: str) -> None:
    guess = queue_name_like(name)
    assert guess is None or is_queue_name(guess)


def test_false_and_null_in_a_file_mean_what_none_means_in_python(tmp_path: Any) -> None:
    def consumer(name: str, text: str) -> ConsumerConfig:
        path = tmp_path / name
        path.write_text(text)
        return load(path, environ={}).consumers["jobs"]

    toml = '[[queues.consumers]]\nqueue = "jobs"\ndead_letter_queue = false\ntime_limit = false\n'
    json = '{"queues": {"consumers": [{"queue": "jobs", "max_concurrency": null, "time_limit": null}]}}'
    assert consumer("a.toml", toml).dead_letter_queue is None
    assert consumer("a.toml", toml).time_limit is None
    assert consumer("a.json", json).max_concurrency is None
    with pytest.raises(ConfigurationError, match=r"or false \(exhausted messages are dropped\)"):
        consumer("a.json", json.replace("max_concurrency", "dead_letter_queue"))
    with pytest.raises(ConfigurationError, match="dead_letter_queue is True"):
        consumer("a.toml", toml.replace("queue = false", "queue = true"))


def test_the_reference_lists_every_setting_with_its_range() -> None:
    page = as_markdown()
    for setting in EVERY:
        assert f"| `{setting.name}` |" in page
        assert setting.doc in page
    assert "| `max_batch_size` | a whole number of messages from 1 to 100 | 10 |" in page
    assert len({len(line.split(" | ")) for line in page.splitlines() if line.startswith("| `")}) == 1


def test_a_setting_says_how_to_write_it() -> None:
    assert written_as(APPLICATION["database_url"]) == [
        "cfqueue.database_url",
        "cfqueue_database_url",
        "CFQUEUE_DATABASE_URL",
    ]
    assert written_as(CONSUMER["max_retries"])[-1] == "@cf.queue(max_retries=…)"
    assert written_as(QUEUE["delivery_delay"])[0] == "queues.producers[].delivery_delay"


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.name)
def test_a_default_is_an_allowed_value(setting: Setting) -> None:
    if isinstance(setting.default, str):
        assert setting.default.startswith("<")
    else:
        assert check(setting, setting.default, "the default") == setting.default


def test_the_defaults_of_the_table_are_those_of_the_data() -> None:
    plain = ConsumerConfig("jobs")
    for name, setting in CONSUMER.items():
        if name != "dead_letter_queue":
            assert getattr(plain, name) == setting.default
