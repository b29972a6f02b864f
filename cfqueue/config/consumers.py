"""The settings of one consumer: what a file and a decorator say, joined and checked together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cfqueue.config.checks import check, shown
from cfqueue.config.model import Config, ConsumerConfig
from cfqueue.config.names import QUEUE_NAME_RULE, is_queue_name, queue_name_like
from cfqueue.config.settings import CONSUMER
from cfqueue.config.suggestion import did_you_mean
from cfqueue.config.warning import warn
from cfqueue.config.wrangler import Given
from cfqueue.errors import ConfigurationError, InvalidQueueName


class Unset:
    """The type of ``UNSET``, for signatures in which None has a meaning of its own."""

    def __repr__(self) -> str:
        return "UNSET"


#: A keyword that was not given.
UNSET: Final = Unset()


def consumer_settings(
    config: Config,
    queue: str,
    keywords: Mapping[str, Any],
    owner: str = "a handler",
    *,
    place: str | None = None,
) -> ConsumerConfig:
    """Settle what applies to the consumer of ``queue``: keywords win over file and ``app.conf``.

    ``keywords`` are those that ``@cf.queue`` was given; ``UNSET`` counts as not given. For texts, ``owner``
    is the handler's full name, and ``place`` is where the keywords stand when it is not a decorator. Where a
    keyword differs from what was configured, a ``ConfigurationWarning`` names both places. Raises
    InvalidQueueName when there can be no such queue, ConfigurationError when a keyword is unknown or its
    value is not allowed.
    """
    if not is_queue_name(queue):
        guess = queue_name_like(queue)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise InvalidQueueName(f"{shown(queue)} is not the name of a queue: {QUEUE_NAME_RULE}.{hint}")
    place = place or f"@cf.queue({queue!r}) of {owner}"
    base = config.consumers.get(queue)
    settings = {} if base is None else _configured(base)
    for name, value in keywords.items():
        if isinstance(value, Unset):
            continue
        if name not in CONSUMER:
            raise ConfigurationError(f"{place}: there is no setting {name!r}.{did_you_mean(name, CONSUMER)}")
        where = f"{place}: {name}"
        checked = check(CONSUMER[name], value, where, limits=config.limits)
        other = settings.get(name)
        if other is not None and other.value != checked:
            warn(
                f"{where} is {checked!r}, {other.where} is {other.value!r}. The keyword wins; write it once."
            )
        settings[name] = Given(checked, where)
    return resolve(queue, settings)


def resolve(queue: str, settings: Mapping[str, Given]) -> ConsumerConfig:
    """Fill in the defaults and check what only shows when all values are together.

    Raises ConfigurationError when the queue is its own dead-letter queue, or when the soft time limit
    is not below the hard one.
    """
    values = {name: given.value for name, given in settings.items()}
    resolved = ConsumerConfig(
        queue=queue, **values, origins={name: given.where for name, given in settings.items()}
    )
    if resolved.dead_letter_queue == queue:
        raise ConfigurationError(
            f"{settings['dead_letter_queue'].where} is {queue!r}: a queue cannot be its own dead-letter "
            "queue. Name another, leave it out for the default "
            f"{ConsumerConfig(queue).dead_letter_queue!r}, or write None (in a file: false) to drop."
        )
    soft, hard = resolved.soft_time_limit, resolved.time_limit
    if soft is not None and hard is not None and soft >= hard:
        raise ConfigurationError(
            f"{settings['soft_time_limit'].where} is {shown(soft)}; it must be below time_limit, which is "
            f"{hard:g} seconds{'' if 'time_limit' in settings else ' by default'}."
        )
    return resolved


def _configured(base: ConsumerConfig) -> dict[str, Given]:
    """Pick the values that somebody chose: with an origin or, in a hand-made one, not the default."""
    plain = ConsumerConfig(base.queue)
    return {
        name: Given(getattr(base, name), base.origins.get(name, f"Config.consumers[{base.queue!r}].{name}"))
        for name in CONSUMER
        if name in base.origins or getattr(base, name) != getattr(plain, name)
    }
