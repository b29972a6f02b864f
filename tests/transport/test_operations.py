"""What each operation does to rows, in one process."""

from __future__ import annotations

import sqlite3

import pytest
from conftest import claim, put, row

from cfqueue import clock
from cfqueue.transport import statements as sql
from cfqueue.transport.operations import Ack, Claim, Move, Put, Reap, Release, Retry, Start
from cfqueue.transport.store import Store


def test_a_stored_message_comes_back_as_it_was(store: Store) -> None:
    sent = row(
        body='"ä\x00\\u0000 \N{SNOWMAN}"',
        headers_json='{"task":"t","n":NaN,"text":"ü\\"]"}',
        properties_json='{"reply_to":"r"}',
        expires_ms=5,
        content_type="text/x",
    )
    (number,) = put(store, sent)
    (got,) = claim(store)
    assert (got.id, got.token, got.queue, got.body, got.message_id) == (
        number, 1, "jobs", sent.body, sent.message_id,
    )  # fmt: skip
    assert got.headers["text"] == 'ü"]'
    assert got.properties == {"reply_to": "r"}
    assert (got.expires_ms, got.content_type, got.attempts, got.suspicion) == (5, "text/x", 1, 0)
    assert (got.first_failed_ms, got.started) == (None, False)


def test_bytes_stay_bytes(store: Store) -> None:
    put(store, row(body=bytes(range(256))), row(body=b""))
    assert [message.body for message in claim(store)] == [bytes(range(256)), b""]


def test_ids_are_given_in_order_over_many_rows(store: Store) -> None:
    first, second = store.submit([Put([row() for _ in range(450)]), Put([row(), row()])])
    assert first == list(range(1, 451))
    assert second == [451, 452]
    assert store.length("jobs") == 452


def test_claims_take_higher_priorities_first_then_older_ones(store: Store) -> None:
    put(store, *[row(priority=priority, body=str(priority)) for priority in (0, 9, 5, 9, 3, 0)])
    assert [(m.priority, m.id) for m in claim(store, 4)] == [(9, 2), (9, 4), (5, 3), (3, 5)]
    assert [m.id for m in claim(store)] == [1, 6]
    assert claim(store) == []


def test_a_delayed_message_waits_in_the_store(store: Store) -> None:
    now = clock.now_ms()
    put(store, row(in_ms=60_000), row(queue="other", in_ms=30_000))
    assert claim(store) == []
    assert not store.is_waiting("jobs", now)
    assert store.is_waiting("jobs", now + 61_000)
    due = store.next_due(["jobs"], now)
    assert due is not None
    assert 59_000 < due - now <= 61_000
    assert store.next_due(["jobs", "other"], now) < due  # type: ignore[operator]
    assert store.next_due(["jobs"], due) is None
    assert len(claim(store, now_ms=due)) == 1


def test_a_claim_takes_one_suspicion_or_any(store: Store) -> None:
    put(store, row(), row(), row())
    a, b, _ = claim(store)
    now = clock.now_ms()
    store.submit([Retry([(*a.lease, 2, now, 2, 7), (*b.lease, 1, now, 1, None)])])
    assert [m.id for m in claim(store, suspicion=1)] == [b.id]
    (again,) = claim(store, suspicion=2)
    assert (again.id, again.attempts, again.first_failed_ms) == (a.id, 2, 7)
    store.submit([Release([again.lease])])
    assert [m.id for m in claim(store, suspicion=None)] == [a.id]


def test_a_claim_that_fills_starts_only_full_batches(store: Store) -> None:
    put(store, row(), row())
    part = claim(store, 3, batch="b", fill=True)
    assert [m.started for m in part] == [False, False]
    store.submit([Release([m.lease for m in part])])
    assert [m.started for m in claim(store, 2, batch="b", fill=True)] == [True, True]


def test_max_concurrency_counts_living_started_batches(store: Store) -> None:
    put(store, *[row() for _ in range(6)])
    one = claim(store, 2, batch="one", max_concurrency=1)
    assert len(one) == 2
    assert claim(store, 2, batch="two", max_concurrency=1) == []
    assert claim(store, 2, batch="two", max_concurrency=1, suspicion=None) == []
    buffered = claim(store, 2)
    start = Start(store.owner().id, "two", [m.lease for m in buffered], 1, "jobs")
    (refused,) = store.submit([start])
    assert not refused
    assert refused.lost == ()
    # In one submit the old batch is settled before the new one is counted.
    fenced, started = store.submit([start, Ack([m.lease for m in one])])[::-1]
    assert not fenced
    assert started


def test_start_is_all_or_nothing(store: Store) -> None:
    put(store, row(), row())
    a, b = claim(store)
    store.submit([Ack([a.lease])])
    (answer,) = store.submit([Start(store.owner().id, "x", [a.lease, b.lease])])
    assert not answer
    assert answer.lost == (a.id,)
    assert store.submit([Start(store.owner().id, "x", [b.lease])])[0]


def test_settles_with_an_old_token_change_nothing_and_say_so(store: Store) -> None:
    put(store, row(), row())
    old, other = claim(store)
    store.submit([Release([old.lease])])
    (new,) = claim(store)
    assert new.lease == (old.id, old.token + 2)
    now = clock.now_ms()
    late = store.submit(
        [
            Ack([old.lease, other.lease]),
            Retry([(*old.lease, 9, now, 2, None)]),
            Move([(*old.lease, "dead", now, {})]),
            Release([old.lease]),
        ]
    )
    assert late == [{old.id}, {old.id}, {old.id}, {old.id}]
    assert store.submit([Ack([new.lease])]) == [frozenset()]
    assert store.submit([Ack([new.lease, new.lease])]) == [{new.id}]
    assert store.length("jobs") == store.length("dead") == 0


def test_a_stale_settle_does_not_keep_others_of_its_transaction_from_theirs(store: Store) -> None:
    put(store, row(), row())
    a, b = claim(store)
    results = store.submit([Ack([(a.id, 99)]), Ack([b.lease]), Put([row()])])
    assert results == [{a.id}, frozenset(), [3]]
    assert store.backlog("jobs").in_flight == 1


def test_move_makes_a_fresh_message_of_another_queue(store: Store) -> None:
    put(store, row(expires_ms=1, priority=4, headers_json='{"task":"t","gone":1,"kept":"ä"}', body=b"\xff"))
    (m,) = claim(store)
    now = clock.now_ms()
    store.submit([Retry([(*m.lease, 3, now, 2, 1)])])
    (m,) = claim(store, suspicion=2)
    store.submit([Move([(*m.lease, "dead", now, {"cfq-reason": "crashed", "gone": None})])])
    (dead,) = claim(store, queue="dead")
    assert dead.headers == {"task": "t", "kept": "ä", "cfq-reason": "crashed"}
    assert (dead.attempts, dead.suspicion, dead.expires_ms, dead.first_failed_ms) == (1, 0, None, None)
    assert (dead.body, dead.priority, dead.message_id, dead.timestamp_ms) == (
        b"\xff", 4, m.message_id, m.timestamp_ms,
    )  # fmt: skip


def test_move_works_on_headers_that_sqlite_cannot_read(store: Store) -> None:
    put(store, row(headers_json='{"n":NaN,"deep":{"a":{}}}'))
    (m,) = claim(store)
    store.submit([Move([(*m.lease, "dead", 0, {"cfq-reason": "x"})])])
    (dead,) = claim(store, queue="dead")
    assert dead.headers["cfq-reason"] == "x"
    assert dead.headers["deep"] == {"a": {}}


def test_headers_that_are_not_json_spoil_one_message_only(store: Store) -> None:
    put(store, row(headers_json="{broken"), row(headers_json='{"a":1}'))
    found = claim(store)
    assert [m.headers for m in found] == [{}, {"a": 1}]
    assert store.submit([Ack([m.lease for m in found])]) == [frozenset()]


def test_release_can_hold_back(store: Store) -> None:
    put(store)
    (m,) = claim(store)
    store.submit([Release([m.lease], hold_ms=60_000)])
    assert claim(store) == []
    assert len(claim(store, now_ms=clock.now_ms() + 61_000)) == 1


@pytest.mark.parametrize("suspicion", [0, 1, 2])
@pytest.mark.parametrize("started", [True, False])
def test_reaping_is_what_the_crash_rules_say(store: Store, suspicion: int, started: bool) -> None:
    crash = pytest.importorskip("cfqueue.messages.crash")
    put(store)
    (m,) = claim(store)
    now = clock.now_ms()
    store.submit([Retry([(*m.lease, 2, now, suspicion, None)])])
    (m,) = claim(store, suspicion=suspicion, batch="b" if started else None, crash_delay_s=7)
    assert store.submit([Reap(store.owner().id, now)]) == [1]
    (back,) = store.peek("jobs", 1)
    expected = crash.returned(suspicion, started, suspicion == 2, 2)
    assert (back.suspicion, back.attempts) == tuple(expected)
    charged = started and suspicion == 2
    assert back.due_ms == (now + 7000 if charged else m.due_ms)
    assert store.submit([Ack([m.lease])]) == [{m.id}]


def test_backlog_peek_purge_and_queues(store: Store) -> None:
    put(store, row(body="12345"), row(in_ms=60_000), row(body="x"))
    (m,) = claim(store, 1)
    store.declare("jobs")
    assert [message.token for message in store.peek("jobs", 10)] == [-1, -1]
    backlog = store.backlog("jobs")
    assert (backlog.count, backlog.bytes, backlog.delayed, backlog.in_flight) == (1, 1, 1, 1)
    assert backlog.oldest_ms is not None
    assert store.purge("jobs") == 2
    assert store.queues() == ["jobs"]
    assert store.submit([Ack([m.lease])]) == [frozenset()]
    assert store.backlog("jobs") == type(backlog)(0, 0, None, 0, 0, 0)


def test_what_cannot_be_stored_fails_alone(store: Store) -> None:
    with pytest.raises(UnicodeEncodeError):
        put(store, row(body="\ud800"))
    with pytest.raises(OverflowError):
        put(store, row(in_ms=1 << 70))
    assert put(store) == [1]


def test_empty_operations_do_nothing(store: Store) -> None:
    assert store.submit([]) == []
    results = store.submit([Put([]), Ack([]), Release([]), Retry([]), Move([])])
    assert results == [[], frozenset(), frozenset(), frozenset(), frozenset()]


def _plan(store: Store, statement: str, values: dict[str, object] | tuple[object, ...]) -> str:
    return " | ".join(r[3] for r in store.read_all(f"EXPLAIN QUERY PLAN {statement}", values))


def test_no_statement_of_the_hot_path_walks_the_table(store: Store) -> None:
    put(store, *[row() for _ in range(50)])
    values = {"queue": "jobs", "now": 1, "limit": 1, "suspicion": 0, "most": 1}
    items = {"items": "[]"}
    plans = [
        *[
            _plan(store, s, values)
            for s in (sql.CHOOSE, sql.CHOOSE_ANY, sql.CHOOSE_BELOW, sql.WAITING, sql.BACKLOG)
        ],
        _plan(store, sql.NEXT_DUE, {"queues": "[]", "now": 1}),
        _plan(store, sql.OWNERS, ()),
        *[_plan(store, s, {"leases": "{}", "due": 0}) for s in (sql.ACK, sql.RELEASE, sql.OURS)],
        *[_plan(store, s, items) for s in (sql.RETRY, sql.MOVE)],
        *[_plan(store, s, {"owner": "x", "now": 1}) for s in (sql.REAP, sql.REAP_CLEAN)],
        _plan(store, sql.TAKE, ("x", None, 0, "[]")),
    ]
    for plan in plans:
        assert "SCAN cfqueue_messages" not in plan, plan
        assert "SCAN m" not in plan.replace("SCAN m VIRTUAL", ""), plan


def test_a_hundred_thousand_delayed_rows_do_not_slow_a_claim(store: Store) -> None:
    for _ in range(10):
        put(store, *[row(priority=9, in_ms=3_600_000) for _ in range(5000)])
    put(store, row())
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def counted(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(count, 100)
        values = {"queue": "jobs", "now": clock.now_ms(), "limit": 100, "suspicion": 0}
        assert connection.execute(sql.CHOOSE, values).fetchone()[0] == 1
        connection.set_progress_handler(None, 0)

    store.write(counted)
    assert steps < 20  # times 100 steps of SQLite's machine: a walk over the rows would take thousands


def test_one_claim_in_a_submit_sees_what_the_same_submit_put_and_settled(store: Store) -> None:
    put(store)
    (m,) = claim(store)
    me = store.owner().id
    got, *_ = store.submit([Claim(me, "jobs", 10), Put([row()]), Release([m.lease])])
    assert [message.id for message in got] == [1, 2]
