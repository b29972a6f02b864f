"""A Cloudflare Worker's queue handlers, with its wrangler.toml and Cloudflare's camelCase names.

    cd cloudflare
    celery -A worker worker      # in one terminal
    python worker.py             # in another

Settings come from the file; the handlers' bodies are what Cloudflare runs.
"""

from pathlib import Path

from cfqueue import CFQueue

cf = CFQueue(config=Path(__file__).with_name("wrangler.toml"))
app = cf.app


@cf.queue("example-cf-orders")
async def orders(batch, env, ctx):
    for message in batch.messages:
        if message.body["total"] > 100 and message.attempts == 1:
            message.retry(delaySeconds=1)
            continue
        await env.MAILS.send({"order": message.body["id"]}, contentType="json")
        message.ack()
    ctx.waitUntil(count(len(batch.messages)))


async def count(messages):
    print(f"{messages} orders looked at")


@cf.queue("example-cf-mails")
async def mails(batch, env):
    for message in batch.messages:
        print(f"{env.SHOP}: order {message.body['order']} is on its way")
    batch.ackAll()


if __name__ == "__main__":
    cf.env.ORDERS.sendBatch([{"body": {"id": 1, "total": 20}}, {"body": {"id": 2, "total": 500}}])

# Output of the worker:
# 2 orders looked at
# the corner shop: order 1 is on its way
# the corner shop: order 2 is on its way
