"""The conformance suite of the consumer: what a handler gets and what becomes of it.

Every test runs on every broker and every pool, on one long-lived worker for each pair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from kombu import Queue as KombuQueue
from worker.harness import BROKERS, PATIENCE, POOLS, Project, Worker, do, eventually

from .program import SOURCE

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module", params=[f"{broker}-{pool}" for broker in BROKERS for pool in POOLS])
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    broker, pool = request.param.split("-")
    project = Project(tmp_path_factory.mktemp(request.param) / "p", SOURCE, broker=broker)
    try:
        with project.worker(pool, name=pool) as worker:
            yield worker
    finally:
        project.close()


@pytest.fixture
def project(worker: Worker) -> Project:
    return worker.project


def sizes(project: Project, queue: str) -> list[int]:
    return [len(run["messages"]) for run in project.records("end", queue=queue)]


# Forming batches


def test_a_batch_leaves_when_it_is_full(project: Project) -> None:
    project.send("sized", *range(8))
    eventually(lambda: sizes(project, "sized") == [4, 4])
    [message] = project.send("sized", "the rest waits for its time")
    time.sleep(0.3)
    assert project.runs(message) == []
    project.send("sized", *range(3))
    eventually(lambda: project.runs(message, "end"))


def test_a_partial_batch_leaves_after_its_timeout(project: Project) -> None:
    started = time.monotonic()
    ids = project.send("timed", "a", "b", "c")
    eventually(lambda: project.runs(ids[0]))
    run = project.runs(ids[0])[0]["run"]
    assert [m["id"] for m in run["messages"]] == ids
    assert run["at"] - started >= 1


def test_without_a_timeout_messages_leave_at_once(project: Project) -> None:
    started = time.monotonic()
    [message] = project.send("at-once", "x")
    run = eventually(lambda: project.runs(message))[0]["run"]
    assert run["at"] - started < 3


# Outcomes


def test_what_the_handler_leaves_alone_is_acked(project: Project) -> None:
    ids = project.send("plain", "a", "b")
    project.drained("plain", "plain-dlq")
    assert [project.attempts(i) for i in ids] == [[1], [1]]


def test_a_retried_message_comes_back_alone_and_counts_its_attempts(project: Project) -> None:
    first, second = project.send("plain", do("first:retry"), "b")
    eventually(lambda: len(project.attempts(first)) == 2)
    project.drained("plain", "plain-dlq")
    assert project.attempts(first) == [1, 2]
    assert project.attempts(second) == [1]
    one, two = project.runs(first)
    assert one["timestamp"] == two["timestamp"]
    assert one["body"] == two["body"]


def test_a_retry_waits_for_its_delay(project: Project) -> None:
    [message] = project.send("plain", do(("first:retry", 1)))
    eventually(lambda: len(project.attempts(message)) == 2)
    one, two = (run["run"]["at"] for run in project.runs(message))
    assert two - one >= 1


def test_the_consumers_retry_delay_applies_where_the_handler_gave_none(project: Project) -> None:
    waited, at_once = project.send("delayed-retries", do("first:retry"), do(("first:retry", 0)))
    eventually(lambda: len(project.attempts(waited)) == 2)
    one, two = (run["run"]["at"] for run in project.runs(waited))
    assert two - one >= 1
    one, two = (run["run"]["at"] for run in project.runs(at_once))
    assert two - one < 1


def test_retry_all_spares_what_was_acked(project: Project) -> None:
    acked, other = project.send("plain", do("ack"), do("first:retry_all"))
    eventually(lambda: len(project.attempts(other)) == 2)
    project.drained("plain")
    if len(project.runs(acked)[0]["run"]["messages"]) == 2:  # they were in one batch
        assert project.attempts(acked) == [1]


def test_an_exception_retries_all_but_what_was_acked_explicitly(project: Project) -> None:
    acked, other = project.send("plain", do("ack"), do("first:raise"))
    eventually(lambda: len(project.attempts(other)) == 2)
    project.drained("plain")
    assert project.attempts(acked) == [1]


def test_ack_all_survives_an_exception(project: Project) -> None:
    ids = project.send("plain", do("ack_all"), do("raise"))
    project.drained("plain", "plain-dlq")
    assert [project.attempts(i) for i in ids] == [[1], [1]]


@pytest.mark.parametrize("word", ["memory", "system-exit", "Retry", "Reject-requeue"])
def test_what_counts_as_an_exception_retries_the_batch(project: Project, worker: Worker, word: str) -> None:
    children = worker.children()
    [message] = project.send("plain", do(f"first:{word}"))
    eventually(lambda: project.attempts(message) == [1, 2])
    project.drained("plain", "plain-dlq")
    assert worker.children() == children


def test_raising_retry_can_name_a_delay(project: Project) -> None:
    [message] = project.send("plain", do(("first:Retry", 1)))
    eventually(lambda: len(project.attempts(message)) == 2)
    one, two = (run["run"]["at"] for run in project.runs(message))
    assert two - one >= 1


def test_raising_reject_dead_letters_at_once(project: Project) -> None:
    [message] = project.send("plain", do("Reject"))
    letter = eventually(lambda: [m for m in project.queue("plain-dlq").peek(100) if m.id == message])[0]
    assert letter.headers["cfq-reason"] == "rejected"
    assert letter.headers["cfq-failed-attempts"] == 1
    assert project.attempts(message) == [1]


def test_raising_ignore_acks(project: Project) -> None:
    [message] = project.send("plain", do("Ignore"))
    eventually(lambda: project.runs(message, "end"))
    project.drained("plain")
    assert project.attempts(message) == [1]


# Dead letters


def test_an_exhausted_message_is_found_in_the_dead_letter_queue_as_it_was(project: Project) -> None:
    before = datetime.now(UTC)
    project.queue("failing").send(b"\x00\xff", content_type="bytes", priority=3)
    [message] = project.send("failing", do("raise", note="schön"))
    letter = eventually(lambda: project.runs(message) and [
        r for r in project.runs(message) if r["run"]["queue"] == "failing-dlq"])[0]  # fmt: skip
    failed = [r for r in project.runs(message) if r["run"]["queue"] == "failing"]
    assert [r["attempts"] for r in failed] == [1, 2, 3]
    assert letter["attempts"] == 1
    for field in ("id", "body", "timestamp", "content_type"):
        assert letter[field] == failed[0][field], field
    headers = letter["headers"]
    assert headers["cfq-reason"] == "retries_exhausted"
    assert headers["cfq-origin"] == "failing"
    assert headers["cfq-failed-attempts"] == 3
    assert headers["cfq-error-type"] == "ValueError"
    assert headers["cfq-error-message"] == "as asked"
    assert "ValueError: as asked" in headers["cfq-traceback"]
    first, last = (
        datetime.fromtimestamp(headers[k] / 1000, UTC) for k in ("cfq-first-failure", "cfq-last-failure")
    )
    assert before - timedelta(seconds=1) <= first <= last <= datetime.now(UTC)


def test_content_types_arrive_unchanged(project: Project) -> None:
    queue = project.queue("at-once")
    sent = {
        queue.send(b"\x00\xff", content_type="bytes").id: ("bytes", "00ff"),
        queue.send("grün", content_type="text").id: ("text", "grün"),
        queue.send({"a": [1, None, True, "ü"]}).id: ("json", {"a": [1, None, True, "ü"]}),
    }
    for message, (kind, body) in sent.items():
        [run] = eventually(lambda m=message: project.runs(m))
        assert (run["content_type"], run["body"]) == (kind, body)


def test_without_a_dead_letter_queue_a_message_is_dropped_and_the_log_says_so(
    project: Project, worker: Worker
) -> None:
    [message] = project.send("dropping", do("raise"))
    eventually(lambda: f"dropped message {message} of queue dropping" in worker.log())
    project.drained("dropping")
    assert project.attempts(message) == [1]


# Handlers


def test_a_handler_takes_the_batch_alone(project: Project) -> None:
    [message] = project.send("batch-only", "x")
    assert eventually(lambda: project.runs(message))[0]["run"]["arity"] == 1


def test_a_handler_takes_batch_and_env(project: Project) -> None:
    [message] = project.send("with-env", "x")
    run = eventually(lambda: project.runs(message))[0]["run"]
    assert run["host"] == "api.example"
    assert {"HOST", "OTHER", "WITH_ENV", "FAILING_DLQ"} <= set(run["names"])


def test_wait_until_keeps_the_batch_open(project: Project) -> None:
    [good] = project.send("with-ctx", {"key": "good"})
    project.drained("with-ctx")
    assert project.records("waited", key="good")
    assert project.attempts(good) == [1]
    [failing] = project.send("with-ctx", {"key": "bad", "fail": True})
    eventually(lambda: project.attempts(failing)[:2] == [1, 2])


def test_a_handler_can_be_a_coroutine_function(project: Project) -> None:
    loops = []
    for _ in range(2):
        [message] = project.send("co", do("ack"))
        loops.append(eventually(lambda m=message: project.runs(m, "end"))[0]["run"]["loop"])
    assert all(loops)
    [failing] = project.send("co", do("first:raise"))
    eventually(lambda: project.attempts(failing) == [1, 2])


def test_a_shared_handler_runs(project: Project) -> None:
    [message] = project.send("shared", "x")
    assert eventually(lambda: project.runs(message))[0]["run"]["shared"] is True


def test_a_batch_knows_what_waits_behind_it(project: Project) -> None:
    project.send("measured", *("x" * 10 for _ in range(4)))
    eventually(lambda: sum(sizes(project, "measured")) == 4)
    seen = [(run["backlog"], run["bytes"]) for run in project.records("end", queue="measured")]
    assert all(isinstance(count, int) and 0 <= count <= 4 for count, _ in seen), seen
    assert all(isinstance(size, int) for _, size in seen)


def test_a_handler_can_send(project: Project) -> None:
    [message] = project.send("sender", "x")
    eventually(
        lambda: (
            sum(
                m["body"] == {"from": message}
                for r in project.records("end", queue="chained")
                for m in r["messages"]
            )
            == 3
        )
    )
    project.drained("sender", "chained")


def test_log_lines_carry_queue_and_batch_id(project: Project, worker: Worker) -> None:
    [message] = project.send("plain", do("first:raise"))
    run = eventually(lambda: project.runs(message))[0]["run"]
    line = eventually(lambda: [line for line in worker.log().splitlines() if run["batch"] in line])[0]
    assert "plain" in line


# What Celery's users know


def test_delay_and_apply_async_send_messages_and_have_results(project: Project) -> None:
    handler = project.module.plain_
    good = handler.delay({"n": 1})
    assert isinstance(good, AsyncResult)
    assert good.get(timeout=PATIENCE) is None
    assert good.state == "SUCCESS"
    bad = handler.delay(do("raise"))
    eventually(lambda: bad.state == "FAILURE")
    assert "retries_exhausted" in str(bad.result)
    assert "ValueError: as asked" in str(bad.result)
    assert project.attempts(bad.id) == [1, 2]


def test_countdown_and_eta_are_delays_and_priority_and_expiry_are_carried(project: Project) -> None:
    handler = project.module.plain_
    started = time.monotonic()
    first = handler.apply_async(({"n": 1},), countdown=1)
    second = handler.apply_async([{"n": 2}], eta=datetime.now(UTC) + timedelta(seconds=1))
    for result in (first, second):
        run = eventually(lambda r=result: project.runs(r.id))[0]["run"]
        assert run["at"] - started >= 0.99
    third = handler.apply_async([{"n": 3}], countdown=2, expires=1)
    letter = eventually(lambda: [m for m in project.queue("plain-dlq").peek(100) if m.id == third.id])[0]
    assert letter.headers["cfq-reason"] == "expired"
    assert letter.body == {"n": 3}
    eventually(lambda: third.state == "FAILURE")
    assert project.runs(third.id) == []


def test_ordinary_tasks_run_beside_the_queues(project: Project) -> None:
    assert project.module.add.delay(2, 3).get(timeout=PATIENCE) == 5


@pytest.fixture
def foreign(project: Project) -> Iterator[Celery]:
    """A Celery program that has never heard of our handlers."""
    app = Celery("foreign", broker=project.url, set_as_current=False)
    yield app
    app.close()


def to(queue: str) -> dict[str, Any]:
    return {"queue": KombuQueue(queue, no_declare=True)}


def test_any_celery_program_can_send(project: Project, foreign: Celery) -> None:
    result = foreign.send_task("cfqueue.queue.at-once", [{"n": 1}], **to("at-once"))
    [run] = eventually(lambda: project.runs(result.id))
    assert (run["body"], run["attempts"], run["content_type"]) == ({"n": 1}, 1, "json")
    started = time.monotonic()
    later = foreign.send_task("cfqueue.queue.at-once", [{"n": 2}], countdown=1, **to("at-once"))
    run = eventually(lambda: project.runs(later.id))[0]["run"]
    assert run["at"] - started >= 0.99


@pytest.mark.parametrize("routing", [{}, {"exchange": "", "routing_key": "plain"}], ids=["none", "exchange"])
def test_a_plain_programs_message_reaches_its_handler_whatever_its_routing(
    project: Project, foreign: Celery, routing: dict[str, Any]
) -> None:
    """Celery itself would send both forms to its default queue (docs/decisions/0007)."""
    result = foreign.send_task("cfqueue.queue.plain", [do("first:raise")], **routing)
    eventually(lambda: project.attempts(result.id) == [1, 2])
    assert {r["run"]["queue"] for r in project.runs(result.id)} == {"plain"}


def dead_letter(project: Project, queue: str, message: str) -> Any:
    return eventually(lambda: [m for m in project.queue(queue).peek(100) if m.id == message])[0]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([1, 2], {}), ([], {}), ([1], {"n": 1}), ([], {"n": 1})],
    ids=["two", "none", "both", "keywords"],
)
def test_other_than_one_argument_is_dead_lettered(
    project: Project, foreign: Celery, args: list[Any], kwargs: dict[str, Any]
) -> None:
    result = foreign.send_task("cfqueue.queue.bad", args, kwargs, **to("bad"))
    letter = dead_letter(project, "bad-dlq", result.id)
    assert letter.headers["cfq-reason"] == "bad_arguments"
    assert letter.headers["cfq-failed-attempts"] == 1
    assert "exactly one positional argument" in letter.headers["cfq-error-message"]
    assert project.runs(result.id) == []


def publish(foreign: Celery, queue: str, body: Any, **options: Any) -> str:
    """Publish raw bytes as a message for the handler."""
    message_id = f"{time.monotonic_ns():032x}"
    headers = {"lang": "py", "task": f"cfqueue.queue.{queue}", "id": message_id, **options.pop("headers", {})}
    options = {"content_type": "application/json", "content_encoding": "utf-8", **options}
    with foreign.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(body, exchange="", routing_key=queue, headers=headers, **options)
    return message_id


UNREADABLE: dict[str, Any] = {
    "not-utf8": {"body": b"\xff\xfe\x00", "content_encoding": "utf-8"},
    "not-json": {"body": "[[1"},
    "pickle": {
        "body": b"\x80\x04K\x01.",
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
    },
    "deep": {"body": "[[" + "[" * 10_000 + "]" * 10_000 + "], {}, {}]"},
    "huge-header": {"body": "[[1], {}, {}]", "headers": {"x-huge": "h" * 200_000}},
    "huge-number": {"body": "[[" + "9" * 6000 + "], {}, {}]"},
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_dead_lettered_at_once_and_the_worker_goes_on(
    project: Project, foreign: Celery, case: str
) -> None:
    message = publish(foreign, "bad", **dict(UNREADABLE[case]))
    letter = dead_letter(project, "bad-dlq", message)
    assert letter.headers["cfq-reason"] == "decode_failed"
    assert letter.headers["cfq-failed-attempts"] == 1
    [good] = project.send("bad", "good")
    eventually(lambda: project.runs(good))
    assert project.runs(message) == []


def test_a_message_of_a_later_format_is_left_for_a_newer_worker(
    project: Project, foreign: Celery, worker: Worker
) -> None:
    message = publish(foreign, "bad", "[[1], {}, {}]", headers={"cfq-version": "2"})
    eventually(lambda: "of a later cfqueue format" in worker.log())
    eventually(lambda: any(m.id == message for m in project.queue("bad").peek(100)))
    assert project.runs(message) == []
    assert not any(m.id == message for m in project.queue("bad-dlq").peek(100))
    project.queue("bad").purge()


def test_another_programs_json_is_the_body(project: Project, foreign: Celery) -> None:
    marker = f"raw-{time.monotonic_ns()}"
    with foreign.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish({"marker": marker}, exchange="", routing_key="at-once", serializer="json")
    bodies = lambda: [m["body"] for r in project.records("end", queue="at-once") for m in r["messages"]]  # noqa: E731
    eventually(lambda: {"marker": marker} in bodies())


def test_one_message_twice_in_a_batch_is_handed_over_once(project: Project, foreign: Celery) -> None:
    message = f"{time.monotonic_ns():032x}"
    for _ in range(2):
        foreign.send_task("cfqueue.queue.timed", [do("ack")], task_id=message, **to("timed"))
    eventually(lambda: project.runs(message, "end"))
    project.drained("timed")
    assert project.attempts(message) == [1]


def test_celerys_and_our_signals_tell_of_a_batch(project: Project) -> None:
    ids = project.send("signalled", "a", do("first:retry"))
    project.drained("signalled")
    eventually(lambda: sum(r["acked"] for r in project.records("settled", queue="signalled")) == 2)
    run = project.runs(ids[1])[0]["run"]
    told = [r["event"] for r in project.records(batch=run["batch"])]
    assert sorted(told) == ["end", "postrun", "prerun", "settled", "start", "started", "success"]
    assert [e for e in told if e not in ("started", "settled")] == [
        "prerun",
        "start",
        "end",
        "success",
        "postrun",
    ]
    [settled] = project.records("settled", batch=run["batch"])
    assert (settled["acked"], settled["retried"], settled["dropped"], settled["dead"]) == (1, 1, 0, {})
    [bad] = project.send("signalled", do("Reject"))
    [buried] = eventually(lambda: project.records("dead-lettered", id=bad))
    assert (buried["reason"], buried["to"]) == ("rejected", "signalled-dlq")
    assert project.records("settled", queue="signalled")[-1]["dead"] == {"rejected": 1}


def test_an_expired_message_is_dead_lettered_not_delivered(project: Project) -> None:
    message = project.queue("plain").send("x", expires=1, delay_seconds=2).id
    letter = dead_letter(project, "plain-dlq", message)
    assert letter.headers["cfq-reason"] == "expired"
    assert project.runs(message) == []


def test_a_revoked_message_is_not_delivered(project: Project, worker: Worker) -> None:
    result = project.module.plain_.apply_async(["x"], countdown=2)
    project.module.app.control.revoke(result.id)
    eventually(lambda: result.id in worker.log())
    project.drained("plain")
    eventually(lambda: f"message {result.id} of queue plain was revoked" in worker.log())
    eventually(lambda: result.state == "REVOKED")
    assert project.runs(result.id) == []


def test_higher_priority_runs_first(project: Project) -> None:
    blocker, *_ = project.send("serial", do(("gate", f"priority-{project.folder.parent.name}")))
    eventually(lambda: project.runs(blocker))
    queue = project.queue("serial")
    sent = {priority: queue.send({"p": priority}, priority=priority).id for priority in (0, 9, 4, 5, None)}
    project.open_gate(f"priority-{project.folder.parent.name}")
    project.drained("serial")
    order = [m["id"] for r in project.records("start", queue="serial") for m in r["messages"]]
    assert order == [blocker, sent[9], sent[5], sent[4], sent[0], sent[None]]


def test_inspect_tells_about_batches(project: Project, worker: Worker) -> None:
    app = project.module.app
    gate = f"inspect-{project.folder.parent.name}"
    name = "cfqueue.queue.plain"

    def inspect(what: str) -> Any:
        answers = eventually(getattr(app.control.inspect(timeout=5, limit=1), what), what=what)
        return answers[f"{worker.name}@test"]

    assert inspect("ping") == {"ok": "pong"}
    assert name in [line.split(" ")[0] for line in inspect("registered")]
    stats = inspect("stats")
    assert "plain" in stats["cfqueue"]["queues"]
    assert name in stats["total"]
    if worker.name == "solo":
        return  # a solo worker answers nothing while it runs
    [message] = project.send("plain", do(("gate", gate)))
    eventually(lambda: project.runs(message))
    [active] = [r for r in inspect("active") if r["name"] == name]
    assert active["args"] == [[message]]
    assert active["queue"] == "plain"
    assert active["id"] == project.runs(message)[0]["run"]["batch"]
    assert isinstance(active["worker_pid"], int)
    assert active["time_start"] > 0
    project.open_gate(gate)
    eventually(lambda: inspect("active") == [])
