"""The results database counts deliveries, batches and retries; a repeated delivery counts once."""

import pytest

from cfqueue.cli.demo_results import CheckedFile, DeadLetter, Results


@pytest.fixture
def results(tmp_path):
    results = Results(tmp_path / "results.db")
    results.create()
    return results


def row(number, attempt=1, finding="intact"):
    return CheckedFile(number, attempt, "vine 5.1.0", f"vine/{number}.py", finding)


def test_nothing_has_happened_yet(results):
    figures = results.figures()
    assert (figures.deliveries, figures.batches, figures.mean_batch_size) == (0, 0, 0.0)


def test_figures_of_two_batches_and_a_retry(results):
    results.store([row(1), row(2, finding="missing")], batch="a", process=1, started=10.0, ended=10.5)
    results.store([row(3)], batch="b", process=2, started=10.0, ended=11.0)
    results.store([row(2, attempt=2)], batch="c", process=1, started=20.0, ended=20.1)
    figures = results.figures()
    assert (figures.deliveries, figures.batches, figures.processes) == (4, 3, 2)
    assert (figures.retries, figures.retried_messages, figures.intact) == (1, 1, 3)
    assert results.speed(1) == pytest.approx(2 / 10.1)
    assert results.speed(2) == 4.0
    assert results.speed(100) == 0.0
    assert results.numbers_found_intact() == {1, 2, 3}
    assert results.succeeded_on_retry() == [row(2, attempt=2)]
    assert results.deliveries_of(2) == [row(2, finding="missing"), row(2, attempt=2)]


def test_the_same_delivery_run_again_replaces_its_row(results):
    for batch in ("a", "b"):
        results.store([row(1)], batch=batch, process=1, started=1.0, ended=2.0)
    assert results.figures().deliveries == 1


def test_dead_letters_are_kept_and_count_as_settled(results):
    letters = [DeadLetter(n, "vine 5.1.0", "vine/a.py", "retries_exhausted", 3) for n in (1, 2)]
    results.store_dead_letters(letters)
    results.store_dead_letters(letters[:1])
    assert results.dead_letters() == letters
    assert results.figures().settled == 2


def test_a_batch_is_one_insert_statement(results, monkeypatch):
    statements = []
    original = Results._connection

    def traced(self):
        import contextlib

        @contextlib.contextmanager
        def connection():
            with original(self) as db:
                db.set_trace_callback(statements.append)
                yield db

        return connection()

    monkeypatch.setattr(Results, "_connection", traced)
    results.store([row(n) for n in range(100)], batch="a", process=1, started=1.0, ended=2.0)
    assert len([text for text in statements if "INSERT" in text]) == 1
    assert results.figures().deliveries == 100
