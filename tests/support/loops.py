"""Event loops: which ones the tests run on, in the thread of a test or in one of their own."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from tests.support.peers import TIMEOUT
from tests.support.tiers import full

try:
    import uvloop
except ImportError:
    uvloop = None

T = TypeVar("T")
LOOPS = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop
    uvloop.new_event_loop().close()  # the first one opens a pipe for the process


class WindowsLoop(asyncio.SelectorEventLoop):
    """A loop that lacks what the loop of Windows lacks, but for its users only: asyncio needs it here.

    asyncio's page "Platform Support" lists it: ``ProactorEventLoop`` has none of these methods.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in MISSING_ON_WINDOWS:
            caller = sys._getframe(1).f_globals["__name__"]
            if caller != "asyncio" and not caller.startswith("asyncio."):
                return getattr(asyncio.AbstractEventLoop, name).__get__(self)  # raises a NotImplementedError
        return super().__getattribute__(name)


MISSING_ON_WINDOWS = {
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "create_unix_connection",
    "create_unix_server",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
}


# A parameter for each event loop. In the quick tier, asyncio's stands for both.
loops = [pytest.param(new, id=name, marks=full if name == "uvloop" else ()) for name, new in LOOPS.items()]
loop_names = [pytest.param(name, marks=full if name == "uvloop" else ()) for name in LOOPS]


class LoopThread:
    """An event loop in a thread, in debug mode, that must be quiet and leave no task behind."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.problems: list[Any] = []
        self._new_event_loop = new_event_loop
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._main)
        self._thread.start()
        assert self._is_running.wait(TIMEOUT)

    def _main(self) -> None:
        with asyncio.Runner(debug=True, loop_factory=self._new_event_loop) as runner:
            runner.run(watch(self._wait(), self.problems))

    async def _wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Blocking handlers run here, all of them at a time.
        self._loop.set_default_executor(ThreadPoolExecutor(64))
        self._end = asyncio.Event()
        self._is_running.set()
        await self._end.wait()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call an asynchronous function in the loop, and wait for it."""

        async def call() -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(TIMEOUT)

    def is_current(self) -> bool:
        """Tell whether the caller runs in the loop."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        assert self.problems == []


async def watch(coroutine: Any, problems: list[Any]) -> None:
    """Run a coroutine, and collect what the loop complains about and the tasks that do not end."""
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = math.inf

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # In debug mode asyncio reports clients that fail at TLS.
        if "transport creation" not in context["message"]:
            problems.append(context)

    loop.set_exception_handler(complain)
    await coroutine
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        _, late = await asyncio.wait(tasks, timeout=TIMEOUT)
        problems += late


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function that blocks, in a thread, for at most the usual time."""
    return await asyncio.wait_for(asyncio.to_thread(function, *args, **kwargs), TIMEOUT)


def asynchronous(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an asynchronous test in debug mode on each event loop, which must be quiet."""

    @pytest.mark.parametrize("new_event_loop", loops)
    def run(*args: Any, new_event_loop: Callable[[], asyncio.AbstractEventLoop], **kwargs: Any) -> None:
        problems: list[Any] = []
        with asyncio.Runner(debug=True, loop_factory=new_event_loop) as runner:
            runner.run(watch(asyncio.wait_for(test(*args, **kwargs), TIMEOUT), problems))
        gc.collect()
        assert problems == []

    functools.update_wrapper(run, test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    del run.__wrapped__
    signature = inspect.signature(test)
    loop = inspect.Parameter("new_event_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])
    return run
