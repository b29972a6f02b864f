"""The project that the consumer's conformance suite runs: handlers that do what their messages say."""

from __future__ import annotations

SOURCE = """
app.conf.update(result_backend="file://" + os.environ["SCENE_FOLDER"] + "/results", task_track_started=True)
os.makedirs(os.environ["SCENE_FOLDER"] + "/results", exist_ok=True)
app.conf.cfqueue_vars = {"HOST": "api.example"}
cf = CFQueue(app, config={"queues": {"producers": [{"binding": "OTHER", "queue": "chained"}]}})

def handler(name, **settings):
    function = lambda batch: run(batch)
    function.__qualname__ = name
    return cf.queue(name, **{"max_batch_timeout": 0, **settings})(function)

plain_ = handler("plain", max_batch_size=5, max_retries=1)
handler("sized", max_batch_size=4, max_batch_timeout=60)
handler("timed", max_batch_size=100, max_batch_timeout=1)
handler("at-once")
handler("failing", max_retries=2)
handler("failing-dlq", dead_letter_queue=None)
handler("dropping", max_retries=0, dead_letter_queue=None)
handler("delayed-retries", retry_delay=1)
handler("serial", max_batch_size=1, max_concurrency=1)
handler("bad", max_retries=3)

@cf.queue("batch-only", max_batch_timeout=0)
def batch_only(batch):
    run(batch, arity=1)

@cf.queue("with-env", max_batch_timeout=0)
def with_env(batch, env):
    run(batch, host=env.HOST, names=dir(env))

@cf.queue("with-ctx", max_batch_timeout=0)
def with_ctx(batch, env, ctx):
    async def later():
        import asyncio
        await asyncio.sleep(0.01)
        record("waited", key=batch[0].body["key"])
        if batch[0].body.get("fail"):
            raise ValueError("in the background")
    ctx.wait_until(later())
    run(batch)

@cf.queue("co", max_batch_timeout=0)
async def coroutine(batch, env):
    import asyncio
    await asyncio.sleep(0.01)
    run(batch, loop=id(asyncio.get_running_loop()))

@(shared_queue if "SCENE_WORKER" in os.environ else cf.queue)("shared", max_batch_timeout=0)
def shared(batch, env):
    run(batch, shared=True)

@cf.queue("measured", max_batch_size=2, max_batch_timeout=0)
def measured(batch):
    run(batch, backlog=batch.metadata.metrics.backlog_count, bytes=batch.metadata.metrics.backlog_bytes)

@cf.queue("sender", max_batch_timeout=0)
def sender(batch, env):
    run(batch)
    for message in batch:
        env.OTHER.send({"from": message.id})
        cf.queues["chained"].send_batch([{"body": {"from": message.id}}])
        plain_chained.delay({"from": message.id})

@cf.queue("chained", max_batch_timeout=0)
def plain_chained(batch):
    run(batch)

handler("signalled")

from celery import signals as theirs
from cfqueue import signals as ours

def mine(sender):
    return getattr(sender, "name", "") == "cfqueue.queue.signalled"

@theirs.task_prerun.connect
def prerun(sender, task_id, **_):
    if mine(sender): record("prerun", batch=task_id)

@theirs.task_postrun.connect
def postrun(sender, task_id, **_):
    if mine(sender): record("postrun", batch=task_id)

@theirs.task_success.connect
def success(sender, **_):
    if mine(sender): record("success", batch=sender.request.id)

@ours.batch_started.connect
def started(sender, queue, batch_id, size, suspicion, **_):
    if queue == "signalled": record("started", queue=queue, batch=batch_id, size=size)

@ours.batch_settled.connect
def settled(sender, queue, batch_id, acked, retried, dead_lettered, dropped, runtime, **_):
    if queue == "signalled":
        record("settled", queue=queue, batch=batch_id, acked=acked, retried=retried, dropped=dropped,
               dead=dead_lettered)

@ours.message_dead_lettered.connect
def dead_lettered(sender, queue, message_id, reason, to, **_):
    if queue == "signalled": record("dead-lettered", id=message_id, reason=reason, to=to)

@app.task(name="project.add", shared=False)
def add(a, b):
    record("task", result=a + b)
    return a + b
"""
