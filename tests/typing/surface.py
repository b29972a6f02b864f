"""The public surface as a user's program writes it. Never run: pyright (strict) and mypy check it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from cfqueue import (
    BrokerError,
    CFQueue,
    CFQueueError,
    Config,
    ConfigurationError,
    ConfigurationWarning,
    Env,
    InvalidMessage,
    Message,
    MessageBatch,
    Queue,
    QueueConsumerConflict,
    SendResult,
    SendUncertain,
    errors,
    shared_queue,
)
from cfqueue.testing import QueueResult, Simulator, create_message_batch, get_queue_result

cf = CFQueue(config="wrangler.toml", database_url="sqlite:///jobs.db")


@cf.queue(
    "jobs",
    max_batch_size=10,
    max_batch_timeout=5,
    max_retries=3,
    retry_delay=10,
    dead_letter_queue="jobs-dlq",
    max_concurrency=2,
    time_limit=60,
    soft_time_limit=30.5,
)
def handle(batch: MessageBatch, env: Env) -> None:
    assert_type(batch.queue, str)
    assert_type(batch.messages, tuple[Message, ...])
    assert_type(len(batch), int)
    assert_type(batch[0], Message)
    count = batch.metadata.metrics.backlog_count
    assert_type(count, int | None)
    for message in batch:
        assert_type(message.id, str)
        assert_type(message.timestamp, datetime)
        assert_type(message.attempts, int)
        try:
            print(message.body, message.content_type, message.headers.get("cfq-reason"))
            message.ack()
        except ValueError:
            message.retry(delay_seconds=30)
        except KeyError:
            message.retry()
    env.MAILS.send({"done": len(batch)})


@cf.queue("mails", dead_letter_queue=None)
async def mails(batch: MessageBatch, env: Env, ctx: Any) -> None:
    ctx.wait_until(env.JOBS.asend({"more": True}))
    batch.ack_all()
    batch.retry_all(delay_seconds=5)


@cf.queue("plain")
def plain(batch: MessageBatch) -> None:
    batch.ackAll()
    batch.retryAll()


@shared_queue("shared", max_batch_size=5)
def shared(batch: MessageBatch) -> None: ...


def produce() -> Iterator[SendResult]:
    result = handle.send({"id": 1}, delay_seconds=60)
    assert_type(result, SendResult)
    assert_type(result.id, str)
    assert_type(result.ids, list[str])
    assert_type(result.metadata.metrics.backlog_count, int | None)
    yield result
    yield handle.send_batch([{"body": {"id": 2}}, {"body": "t", "content_type": "text", "delay_seconds": 5}])
    yield shared.send("x", content_type="text")
    queue = cf.queues["jobs"]
    assert_type(queue, Queue)
    yield queue.send(b"x", content_type="bytes", priority=9, expires=timedelta(hours=1), timeout=2.5)
    yield queue.send("x", expires=datetime.now(UTC) + timedelta(days=1))
    yield queue.send("x", {"delaySeconds": 5})
    yield queue.sendBatch([{"body": 1}], {"delaySeconds": 5})
    for name in cf.queues:
        assert_type(name, str)
    metrics = queue.metrics()
    assert_type(metrics.delayed_count, int | None)
    for peeked in queue.peek(limit=5):
        assert_type(peeked.id, str)
    assert_type(queue.purge(), int)


async def produce_without_blocking() -> None:
    assert_type(await handle.asend({"id": 1}), SendResult)
    assert_type(await handle.asend_batch([{"body": 1}]), SendResult)
    assert_type(await handle.send({"id": 1}), SendResult)


def celerys_way() -> None:
    handle.delay({"id": 1})
    handle.apply_async([{"id": 1}], countdown=5, priority=3, expires=60)
    handle.apply([{"id": 1}])
    print(handle.settings.max_retries, handle.name, cf.app, cf.config.limits.message_bytes)


def errors_are_caught() -> None:
    try:
        handle.send(1)
    except InvalidMessage as error:
        print(error)
    except SendUncertain:
        pass
    except (errors.BrokerUnavailable, errors.BrokerFull, BrokerError):
        pass
    except (QueueConsumerConflict, ConfigurationError):
        pass
    except CFQueueError:
        raise


def tests() -> None:
    batch = create_message_batch("jobs", [{"id": "1", "body": {"a": 1}, "attempts": 2}])
    result = get_queue_result(batch, handle, env=cf.env)
    assert_type(result, QueueResult)
    print(result.outcome, result.explicit_acks, result.retry_messages, result.to_dict())
    simulator = Simulator()
    simulator.consumer("jobs", handle, max_batch_size=2)
    simulator.queue("jobs").send(1)
    simulator.advance(5)
    print(simulator.deliveries, simulator.dropped)


configuration: Config = cf.config
warning: type[ConfigurationWarning] = ConfigurationWarning
