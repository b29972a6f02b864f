"""End-to-end tests: real `celery worker` processes, real files."""
