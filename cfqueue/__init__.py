"""Cloudflare Queues for people who run Celery."""
