"""What a decorator says, joined with what was configured."""

import pickle
from typing import Any

import pytest

from cfqueue.config import (
    UNSET,
    Config,
    ConfigurationWarning,
    ConsumerConfig,
    consumer_settings,
    dead_letter_name,
    load,
)
from cfqueue.errors import CFQueueError, ConfigurationError, InvalidQueueName

FILE = load({"queues": {"consumers": [{"queue": "jobs", "max_retries": 5}]}}, environ={})


def settled(config: Config = Config(), queue: str = "jobs", **keywords: Any) -> ConsumerConfig:  # noqa: B008
    return consumer_settings(config, queue, keywords, "shop.tasks.handle")


def error_of(queue: str = "jobs", **keywords: Any) -> str:
    with pytest.raises(CFQueueError) as caught:
        settled(queue=queue, **keywords)
    return str(caught.value)


def test_without_anything_cloudflares_defaults_apply() -> None:
    settings = settled()
    assert (settings.max_batch_size, settings.max_batch_timeout, settings.max_retries) == (10, 5, 3)
    assert (settings.retry_delay, settings.max_concurrency) == (0, None)
    assert settings.dead_letter_queue == "jobs-dlq"
    assert settings.origins == {}


def test_the_file_applies_where_no_keyword_is_given() -> None:
    settings = settled(FILE, max_batch_size=20)
    assert (settings.max_retries, settings.max_batch_size) == (5, 20)
    assert settings.origins == {
        "max_retries": "config: queues.consumers[0].max_retries",
        "max_batch_size": "@cf.queue('jobs') of shop.tasks.handle: max_batch_size",
    }


def test_a_keyword_wins_over_the_file_with_a_warning_when_they_differ() -> None:
    with pytest.warns(ConfigurationWarning) as caught:
        settings = settled(FILE, max_retries=3)
    assert settings.max_retries == 3
    assert str(caught[0].message) == (
        "@cf.queue('jobs') of shop.tasks.handle: max_retries is 3, "
        "config: queues.consumers[0].max_retries is 5. The keyword wins; write it once."
    )


def test_a_keyword_that_says_the_same_is_silent() -> None:
    assert settled(FILE, max_retries=5).max_retries == 5


def test_a_keyword_over_a_value_that_nobody_wrote_is_silent() -> None:
    assert settled(FILE, retry_delay=7, dead_letter_queue=None).retry_delay == 7


def test_a_keyword_differs_from_a_config_made_by_hand_too() -> None:
    config = Config(consumers={"jobs": ConsumerConfig("jobs", max_retries=5)})
    with pytest.warns(ConfigurationWarning, match=r"Config\.consumers\['jobs'\]\.max_retries is 5"):
        settled(config, max_retries=3)


def test_unset_is_not_given() -> None:
    assert settled(FILE, max_retries=UNSET, dead_letter_queue=UNSET) == settled(FILE)


@pytest.mark.parametrize("nothing", [None, False])
def test_dead_letters_are_dropped_on_request_only(nothing: Any) -> None:
    assert settled(dead_letter_queue=nothing).dead_letter_queue is None


def test_a_dead_letter_queue_that_names_none_fails_into_a_queue_of_its_own() -> None:
    assert settled(queue="jobs-dlq").dead_letter_queue == "jobs-dlq-dlq"


def test_the_longest_name_has_a_default_dead_letter_queue_that_differs() -> None:
    queue = "q" * 63
    name = settled(queue=queue).dead_letter_queue
    assert name == dead_letter_name(queue)
    assert name is not None
    assert len(name) == 63
    assert name != queue


def test_a_raised_limit_applies_to_keywords() -> None:
    config = load(environ={"CFQUEUE_MAX_DELAY_SECONDS": "100000"})
    assert settled(config, retry_delay=100_000).retry_delay == 100_000


def test_a_queue_with_a_bad_name_is_refused() -> None:
    with pytest.raises(InvalidQueueName, match=r"'my jobs' is not the name of a queue.*mean 'my-jobs'"):
        settled(queue="my jobs")
    with pytest.raises(InvalidQueueName, match="63"):
        settled(queue="a" * 64)


def test_an_unknown_keyword_is_refused_with_a_suggestion() -> None:
    text = error_of(max_batchsize=5)
    assert text == (
        "@cf.queue('jobs') of shop.tasks.handle: there is no setting 'max_batchsize'. "
        "Did you mean 'max_batch_size'?"
    )


def test_its_own_queue_is_no_dead_letter_queue() -> None:
    assert "a queue cannot be its own dead-letter queue" in error_of(dead_letter_queue="jobs")


def test_a_soft_time_limit_is_below_the_hard_one() -> None:
    assert settled(soft_time_limit=1.5, time_limit=2).soft_time_limit == 1.5
    assert settled(soft_time_limit=5_000, time_limit=None).time_limit is None
    assert "soft_time_limit is 2; it must be below time_limit, which is 2 seconds." in error_of(
        soft_time_limit=2, time_limit=2
    )
    assert "which is 900 seconds by default." in error_of(soft_time_limit=1_000)


def test_an_error_names_handler_keyword_value_and_range() -> None:
    assert error_of(max_batch_timeout=5_000) == (
        "@cf.queue('jobs') of shop.tasks.handle: max_batch_timeout is 5000; it must be a whole number of "
        "seconds from 0 to 60. Did you mean 5 (seconds, not milliseconds)?"
    )


def test_the_settings_can_be_sent_to_another_process() -> None:
    settings = settled(FILE, max_batch_size=20)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(settled(FILE, max_batch_size=20))
    with pytest.raises(ConfigurationError):
        settled(max_retries=None)
