"""The configuration: wrangler files, Python, ``app.conf`` and the environment, one validated schema.

Law of this room: no Celery, kombu, SQL or Flask, and no ``cfqueue.messages``; importing it is cheap
(tomllib and json5 are loaded when a file is read).

Where a setting is written in several places, the later of these wins:

1. the default (``settings.py``, with its source)
2. the configuration file: ``wrangler.toml``, ``.jsonc``, ``.json``, or the same as a dict
3. Celery's ``app.conf``: ``cfqueue_*``, in a Django-style settings module ``CFQUEUE_*``
4. the environment: ``CFQUEUE_*``
5. a keyword in Python: ``CFQueue(config=…, database_url=…)``, ``@cf.queue(max_retries=…)``

A file ships with the program, ``app.conf`` belongs to the project, the environment is the word of
whoever deploys (as Celery lets ``CELERY_BROKER_URL`` win over ``broker_url``), and a keyword was
written for exactly this handler. A keyword of ``@cf.queue`` that differs from the file or from
``app.conf`` wins with a ``ConfigurationWarning``, because one of the two is then out of date.
Settings of a single queue have no variables.

Without an argument no file is looked for: a host project that merely adds cfqueue must not change
with the folder it is started in. ``find`` is for the command line, where that is wanted.

``delivery_delay`` of a producer applies here, with a warning: Cloudflare ignores it in a file since
2024, but who wrote it meant it, and there is no other file in which to say it. In ``app.conf``
(``cfqueue_queues``) it is ours and does not warn.
"""

from cfqueue.config.consumers import UNSET, Unset, consumer_settings
from cfqueue.config.files import find
from cfqueue.config.loading import load
from cfqueue.config.model import Config, ConsumerConfig, Producer
from cfqueue.config.names import binding_of, dead_letter_name, is_queue_name
from cfqueue.config.settings import MOST_DELAY_SECONDS
from cfqueue.config.warning import ConfigurationWarning

__all__ = [
    "MOST_DELAY_SECONDS",
    "UNSET",
    "Config",
    "ConfigurationWarning",
    "ConsumerConfig",
    "Producer",
    "Unset",
    "binding_of",
    "consumer_settings",
    "dead_letter_name",
    "find",
    "is_queue_name",
    "load",
]
