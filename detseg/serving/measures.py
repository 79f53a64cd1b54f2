"""Measure a server for Prometheus: requests by status code, their duration, the queue, the sizes of batches."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """The measurements of one server; ``text()`` is what Prometheus reads."""

    def __init__(self, queue_length: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("detseg_requests", "Requests by status code", ["code"], registry=self._registry)
        self._seconds = Histogram(
            "detseg_request_seconds", "Seconds from request to answer", buckets=SECONDS, registry=self._registry
        )
        self._sizes = Histogram("detseg_batch_size", "Images per batch", buckets=SIZES, registry=self._registry)
        Gauge("detseg_queue_length", "Images that wait", registry=self._registry).set_function(queue_length)

    def batch(self, size: int) -> None:
        """Count a batch of ``size`` images."""
        self._sizes.observe(size)

    def request(self, code: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(str(code)).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """All measurements in Prometheus' text format."""
        return generate_latest(self._registry)


class MeasuredApp:
    """An ASGI application whose requests are counted, with the code that is sent first."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app, self._measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, is_answered = time.monotonic(), False

        async def counted(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                self._measures.request(message["status"], time.monotonic() - started)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not is_answered:  # the answer 500 is made above this application
                self._measures.request(500, time.monotonic() - started)
            raise
