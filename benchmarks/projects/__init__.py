"""The Celery projects that benchmark workers run: `queues` with handlers, `tasks` with plain tasks.

Both do the same work. What they need to know comes in the environment, as `BENCHMARK_FOLDER` and
`BENCHMARK_BROKER`.
"""
