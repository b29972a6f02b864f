"""Test a handler without a broker and without a worker.

    python testing_a_handler.py      # or with pytest

What the handler did comes back as a value.
"""

from cfqueue.testing import create_message_batch, get_queue_result


def handle(batch, env):
    for message in batch:
        if message.body["total"] > env["limit"]:
            message.retry(delay_seconds=60)
        else:
            message.ack()


def test_large_orders_wait_a_minute():
    batch = create_message_batch(
        "orders",
        [{"id": "small", "body": {"total": 5}}, {"id": "large", "body": {"total": 5000}}],
    )
    result = get_queue_result(batch, handle, {"limit": 1000})
    assert result.outcome == "ok"
    assert result.explicit_acks == ["small"]
    assert [(each.msg_id, each.delay_seconds) for each in result.retry_messages] == [("large", 60)]


def test_an_error_is_part_of_the_result():
    batch = create_message_batch("orders", [{"id": "odd", "body": {}}])
    result = get_queue_result(batch, handle, {"limit": 1000})
    assert result.outcome == "exception"
    assert isinstance(result.error, KeyError)


if __name__ == "__main__":
    test_large_orders_wait_a_minute()
    test_an_error_is_part_of_the_result()
    print("both hold")

# Output:
# both hold
