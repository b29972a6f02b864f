"""``env``: bindings by name, looked up when they are used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from celery import Celery

from cfqueue import CFQueue, Env, Queue

CONFIG: dict[str, Any] = {
    "queues": {"producers": [{"binding": "MY_QUEUE", "queue": "jobs"}]},
    "vars": {"API_HOST": "api.example", "LEVELS": [1, 2], "DEBUG": False, "NONE": None},
}


@pytest.fixture
def cf() -> CFQueue:
    cf = CFQueue(Celery("env", broker="cfqueue+sqlite:////nowhere/q.db", set_as_current=False), config=CONFIG)
    cf.queue("mail-out")(lambda batch: None)
    return cf


def test_a_declared_binding_is_its_queue(cf: CFQueue) -> None:
    assert isinstance(cf.env.MY_QUEUE, Queue)
    assert cf.env.MY_QUEUE is cf.queues["jobs"]
    assert cf.env["MY_QUEUE"] is cf.env.MY_QUEUE


def test_a_queue_without_a_binding_has_its_name_in_capitals(cf: CFQueue) -> None:
    assert cf.env.MAIL_OUT is cf.queues["mail-out"]
    assert cf.env.MAIL_OUT_DLQ is cf.queues["mail-out-dlq"]


def test_vars_are_plain_values(cf: CFQueue) -> None:
    assert (cf.env.API_HOST, cf.env.LEVELS, cf.env.DEBUG) == ("api.example", [1, 2], False)
    assert "DEBUG" in cf.env


def test_an_unknown_binding_is_named_with_what_there_is_and_a_guess(cf: CFQueue) -> None:
    with pytest.raises(
        AttributeError, match=r"no binding 'MY_QUEU'\. Did you mean 'MY_QUEUE'\?.*API_HOST.*MAIL_OUT"
    ):
        _ = cf.env.MY_QUEU
    with pytest.raises(KeyError, match="no binding 'NOPE'"):
        cf.env["NOPE"]
    assert getattr(cf.env, "NOPE", None) is None
    assert not hasattr(cf.env, "NOPE")
    assert "NOPE" not in cf.env
    assert 5 not in cf.env


def test_its_names_are_listed(cf: CFQueue) -> None:
    assert {"API_HOST", "MY_QUEUE", "MAIL_OUT", "MAIL_OUT_DLQ"} <= set(dir(cf.env))
    assert dir(cf.env) == sorted(dir(cf.env))
    assert "MY_QUEUE" in repr(cf.env)


def test_a_program_can_add_and_replace_bindings(cf: CFQueue) -> None:
    client = object()
    cf.env.DATABASE = client
    cf.env.API_HOST = "test.example"
    assert cf.env.DATABASE is client
    assert cf.env.API_HOST == "test.example"
    assert {"DATABASE", "API_HOST"} <= set(dir(cf.env))


def test_bindings_are_read_late() -> None:
    """A handler's module may be imported before the configuration can be read."""
    looked: list[str] = []

    def lookup(name: str) -> Any:
        looked.append(name)
        raise KeyError(name)

    env = Env(lookup, lambda: ["A"])
    assert looked == []
    with pytest.raises(AttributeError):
        _ = env.B
    assert looked == ["B"]


def test_protocols_that_look_for_magic_names_find_none(cf: CFQueue) -> None:
    assert not hasattr(cf.env, "__fspath__")
    assert not hasattr(cf.env, "__html__")
    assert copy.copy(cf.env).API_HOST == "api.example"
