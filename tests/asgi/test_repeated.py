"""wsframe.asgi: a message that many connections send is compressed once for all, and soon forgotten."""

from __future__ import annotations

import asyncio

import pytest

from wsframe import Prepared
from wsframe.asgi import _Repeated

MESSAGE = "x" * 200


def run(main, now):
    """Run a coroutine in a loop whose time the test sets."""
    loop = asyncio.new_event_loop()
    loop.time = lambda: now[0]
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_message_is_prepared_for_the_third_connection_that_sends_it_and_forgotten_after_a_second():
    now = [0.0]

    async def main():
        repeated = _Repeated()
        for _ in range(2):
            assert repeated.prepare(MESSAGE, 1) is MESSAGE  # the same connection again
        assert repeated.prepare(MESSAGE, 2) is MESSAGE
        prepared = repeated.prepare(MESSAGE, 3)
        assert isinstance(prepared, Prepared)
        assert repeated.prepare(MESSAGE, 1) is prepared
        now[0] = 0.9
        await asyncio.sleep(0)
        assert repeated.prepare(MESSAGE, 4) is prepared
        now[0] = 1.1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert repeated.prepare(MESSAGE, 5) is MESSAGE

    run(main, now)


@pytest.mark.parametrize("message", ["x" * 65536, bytearray(200)], ids=["large", "bytearray"])
def test_other_messages_are_left_to_each_connection(message):
    async def main():
        repeated = _Repeated()
        for sender in range(5):
            assert repeated.prepare(message, sender) is message

    run(main, [0.0])


def test_as_many_messages_are_remembered_as_groups_send_at_once():
    async def main():
        repeated = _Repeated()
        for sender in range(2):
            repeated.prepare(MESSAGE, sender)
        for number in range(7):
            repeated.prepare(f"{number}" * 200, 1)
        assert isinstance(repeated.prepare(MESSAGE, 2), Prepared)
        repeated.prepare("other" * 50, 1)
        assert repeated.prepare(MESSAGE, 3) is MESSAGE

    run(main, [0.0])
