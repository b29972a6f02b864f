"""The configurations of the seed documents load as they are (002 has none)."""

from pathlib import Path

import pytest

from cfqueue.config import Config, ConsumerConfig, Producer, load

SEEDS = Path(__file__).parent / "seeds"


def seed(name: str) -> Config:
    return load(SEEDS / name, environ={})


@pytest.mark.parametrize("path", sorted(SEEDS.iterdir()), ids=lambda path: path.name)
def test_every_seed_loads_without_a_warning(path: Path) -> None:
    assert load(path, environ={}).source == str(path)


def test_seed_000_has_a_producer_and_a_consumer_with_a_dead_letter_queue() -> None:
    config = seed("000_queues.toml")
    assert config.name == "my-worker"
    assert config.producers == {"MY_QUEUE": Producer("MY_QUEUE", "my-queue")}
    assert config.consumers == {
        "my-queue": ConsumerConfig(
            "my-queue",
            max_batch_size=10,
            max_batch_timeout=30,
            max_retries=3,
            dead_letter_queue="my-dlq",
        )
    }


def test_seed_000_keeps_its_durable_object_and_its_migration() -> None:
    config = seed("000_durable_objects.toml")
    assert config.durable_objects == {"bindings": [{"name": "COUNTER", "class_name": "Counter"}]}
    assert config.migrations == ({"tag": "v1", "new_classes": ["Counter"]},)


def test_seed_001_has_its_producer_in_one_file_and_its_consumer_in_another() -> None:
    assert seed("001_producer.toml").producers == {"MY_QUEUE": Producer("MY_QUEUE", "my-job-queue")}
    consumer = seed("001_consumer.toml").consumers["my-job-queue"]
    assert (consumer.max_batch_size, consumer.max_batch_timeout) == (10, 5)
    assert (consumer.max_retries, consumer.dead_letter_queue) == (3, "my-job-queue-dlq")


def test_seed_003_retries_after_ten_seconds() -> None:
    config = seed("003.toml")
    assert config.producers == {"JOBS": Producer("JOBS", "jobs")}
    assert config.consumers["jobs"] == ConsumerConfig("jobs", retry_delay=10)


def test_seed_004_is_json_with_comments() -> None:
    assert seed("004.jsonc").consumers["background-jobs"] == ConsumerConfig(
        "background-jobs",
        max_batch_size=100,
        max_batch_timeout=30,
        max_retries=3,
        dead_letter_queue="background-jobs-dlq",
    )
