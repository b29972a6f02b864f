"""What ``@cf.queue`` returns: the handler, which is also its queue's producer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cfqueue.messages import TASK_PREFIX, ConsumerSettings
from cfqueue.messages.context import Context
from cfqueue.producer import Queue, SendResult

if TYPE_CHECKING:
    from cfqueue.consumer.child import Runner

Keywords = Mapping[str, Any]


def keywords_of(settings: Mapping[str, Any]) -> Keywords:
    """The settings as given, Cloudflare's spelling in Python form; checked where they are joined."""
    return dict(settings)


class Producing:
    """The producing side of a handler: what can be called on it besides the function itself."""

    function: Callable[..., Any]

    @property
    def queue(self) -> Queue:
        """The queue's handle."""
        raise NotImplementedError

    @property
    def task(self) -> Any:
        """The Celery task that stands for the queue."""
        raise NotImplementedError

    def send(self, body: Any, options: Mapping[str, Any] | None = None, **keywords: Any) -> SendResult:
        """Send one message; see ``Queue.send``."""
        return self.queue.send(body, options, **keywords)

    def send_batch(
        self, messages: Any, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> SendResult:
        """Send up to 100 messages as one; see ``Queue.send_batch``."""
        return self.queue.send_batch(messages, options, **keywords)

    async def asend(self, body: Any, options: Mapping[str, Any] | None = None, **keywords: Any) -> SendResult:
        """``send`` that does not block the running event loop."""
        return await self.queue.asend(body, options, **keywords)

    async def asend_batch(
        self, messages: Any, options: Mapping[str, Any] | None = None, **keywords: Any
    ) -> SendResult:
        """``send_batch`` that does not block the running event loop."""
        return await self.queue.asend_batch(messages, options, **keywords)

    sendBatch = send_batch  # noqa: N815 - Cloudflare's spelling

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's ``delay``: one positional argument, the body. Returns an ``AsyncResult``."""
        return self.task.delay(*args, **kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Celery's ``apply_async``, with ``countdown``, ``eta``, ``expires``, ``priority`` and ``task_id``."""
        return self.task.apply_async(args, kwargs, **options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the handler here and now on a batch of one; returns an ``EagerResult``."""
        return self.task.apply(args, kwargs, **options)

    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's signature of sending one message: for groups and beat entries. It cannot be linked."""
        return self.task.s(*args, **kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's immutable signature of sending one message."""
        return self.task.si(*args, **kwargs)

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's signature of sending one message, with options."""
        return self.task.signature(*args, **kwargs)


class Handler(Producing):
    """A queue's handler in one application. Calling it calls the function."""

    def __init__(
        self, cf: Any, name: str, function: Callable[..., Any], arguments: int, keywords: Keywords
    ) -> None:
        functools.update_wrapper(self, function)
        self._cf = cf
        self.name = name
        self.function = function
        self.arguments = arguments
        self.keywords = keywords

    def __call__(self, batch: Any, env: Any = None, ctx: Any = None) -> Any:
        """Call the function with as many of batch, env and ctx as it takes; nothing is settled."""
        given = (batch, self._cf.env if env is None else env, Context() if ctx is None else ctx)
        return self.function(*given[: self.arguments])

    @property
    def owner(self) -> str:
        """Module and name of the function, for texts."""
        function = self.function
        return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"

    @property
    def queue(self) -> Queue:
        """The queue's handle."""
        found: Queue = self._cf.queues[self.name]
        return found

    @property
    def settings(self) -> ConsumerSettings:
        """What applies to this consumer; reads the configuration."""
        found: ConsumerSettings = self._cf.settings_of(self.name)
        return found

    @property
    def task(self) -> Any:
        """The Celery task ``cfqueue.queue.<name>``."""
        return self._cf.app.tasks[TASK_PREFIX + self.name]

    def runner(self) -> Runner:
        """What a pool child needs to run batches of this queue."""
        from cfqueue.consumer.child import Runner

        cf = self._cf
        return Runner(
            self.settings,
            self.function,
            self.arguments,
            lambda: cf.env,
            self.task,
            cf.metrics,
            cf.config.limits,
        )

    def make_task(self) -> Any:
        """A new Celery task for the registry."""
        from cfqueue.consumer.task import QueueTask

        return type(
            self.function.__name__ if hasattr(self.function, "__name__") else "handler",
            (QueueTask,),
            {
                "name": TASK_PREFIX + self.name,
                "publish": staticmethod(self._publish),
                "forward": staticmethod(self._forward),
                "runner": staticmethod(self.runner),
                "__doc__": self.function.__doc__,
                "__module__": self.function.__module__,
            },
        )()

    def _publish(self, body: Any, **options: Any) -> None:
        queue = self.queue
        queue.publish([queue.build(body, **options)])

    def _forward(self, message: Any) -> None:
        self.queue.publish([message])

    def __repr__(self) -> str:
        return f"<Handler of queue {self.name!r}: {self.owner}>"


class SharedHandler(Producing):
    """A handler that belongs to every application; its queue is that of the current one."""

    def __init__(
        self, queue_name: str, function: Callable[..., Any], keywords: Keywords, current: Callable[[], Any]
    ) -> None:
        functools.update_wrapper(self, function)
        self.queue_name = queue_name
        self.function = function
        self.keywords = keywords
        self._current = current

    @property
    def _handler(self) -> Handler:
        found: Handler = self._current().consumers[self.queue_name]
        return found

    def __call__(self, batch: Any, env: Any = None, ctx: Any = None) -> Any:
        """Call the function with as many of batch, env and ctx as it takes."""
        return self._handler(batch, env, ctx)

    @property
    def queue(self) -> Queue:
        """The queue's handle in the current application."""
        return self._handler.queue

    @property
    def settings(self) -> ConsumerSettings:
        """What applies in the current application."""
        return self._handler.settings

    @property
    def task(self) -> Any:
        """The Celery task of the current application."""
        return self._handler.task

    def __repr__(self) -> str:
        return f"<SharedHandler of queue {self.queue_name!r}>"
