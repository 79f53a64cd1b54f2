"""Run an application on a socket until a signal stops it, and answer all that was accepted before."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from detseg.errors import DataError
from detseg.options import ServeConfig
from detseg.runtime.signals import SIGNALS
from detseg.serving.batcher import Batcher
from detseg.serving.refusal_response import LINGER

HEAD_SECONDS = 5.0
"""Seconds within which a client must have sent the head of a request, from the connection or its first byte on."""

WRITE_SECONDS = 30.0
"""Seconds after which a client that does not read its answer is disconnected."""

HEAD_BYTES = 16 * 1024
"""Most bytes of the head of a request."""

KEEP_ALIVE = 15
"""Seconds after which an idle connection is closed."""

BACKLOG = 1024
SPARE_SECONDS = 10
"""Seconds of the shutdown for the work that is in progress when the last deadline has passed."""

_BUSY_TEXT = '{"error": "too many connections; try again"}'
_BUSY = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(_BUSY_TEXT)}\r\nConnection: close\r\n\r\n{_BUSY_TEXT}"
).encode()


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a limit on connections, and on the times for the head of a request and for reading
    the answer, which uvicorn itself waits for without end."""

    def __init__(self, *args: Any, most: int, refused: set[GuardedProtocol], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most, self._refused = most, refused
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._refuse(transport)
        else:
            self._watch()

    def _refuse(self, transport: Any) -> None:
        """Answer, then drop what the client sends for a while: closed at once, the connection would lose the answer."""
        self.connections.discard(self)
        transport.write(_BUSY)
        if len(self._refused) < self._most:
            self._refused.add(self)
            transport.write_eof()
            self._timer = self.loop.call_later(LINGER, transport.abort)
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self in self._refused:
            return
        while data and not self.transport.is_closing():
            # h11 limits the head only while it is incomplete; in small parts it is at most twice the limit
            size = HEAD_BYTES if self._waits_for_head else len(data)
            super().data_received(data[:size])
            data = data[size:]
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused.discard(self)
        self._stop_watching()
        self._stop_write_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    @property
    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._waits_for_head:
            self._stop_watching()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._close_late)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_late(self) -> None:
        self._timer = None
        if self._waits_for_head:
            self.transport.close()


def listen(config: ServeConfig) -> socket.socket:
    """A socket that listens on the address of ``config``; connections wait until the server runs.

    Raises:
        DataError: the address is in use, is not one of this machine, or its port needs more rights.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise DataError(
            f"cannot listen on {config.host} port {config.port} ({_reason(error)}); choose others with --host and "
            "--port, such as --port 0 for a free one"
        ) from error


def _reason(error: OSError) -> str:
    """What is wrong with the address, without the address, which Python adds."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


class _Server(uvicorn.Server):
    """A server that also ends when its batcher has failed, so that it is started again."""

    def __init__(self, config: uvicorn.Config, batcher: Batcher) -> None:
        super().__init__(config)
        self.batcher = batcher

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.batcher.has_failed


def run_server(app: FastAPI, config: ServeConfig, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing more, answer all requests, and return.

    A second SIGINT returns without waiting.

    Args:
        app: of ``create_app``.
        config: the same.
        listening: of :func:`listen`.

    Raises:
        DataError: the application did not start, or its model failed at its first image.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(GuardedProtocol, most=config.connections, refused=set()),
            ws="none",
            lifespan="on",
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE,
            # every request ends by then: its upload and its prediction have deadlines
            timeout_graceful_shutdown=round(config.upload_seconds + config.deadline + SPARE_SECONDS),
            backlog=BACKLOG,
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="error",
        ),
        app.state.batcher,
    )

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn handles signals itself, and at the end raises them again for the handlers that were there before: with the
    # default ones the exit code of a complete shutdown would be 143
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started or server.batcher.has_failed:
        raise DataError("the server failed; the lines above have the reason")
