"""Answer one request for predictions: read its images, predict them, convert the results."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from detseg.errors import DataError
from detseg.options import ServeConfig
from detseg.serving.batcher import Batcher, QueueFull, Stopped
from detseg.serving.limits import Held, Refusal, Upload, check_files
from detseg.serving.reply import Model, ReplyOptions, to_reply

UNREADABLE = "file {} cannot be decoded: it is truncated, corrupt, or of a kind that the model does not support"


@dataclass(frozen=True)
class Service:
    """What all requests share."""

    model: Model
    config: ServeConfig
    batcher: Batcher
    held: Held


def check_token(request: Request, token: str | None) -> None:
    """Refusal 401 unless the request has the token; compared in constant time."""
    if token is None:
        return
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode(), token.encode()):
        raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN", unread=True)


async def answer(request: Request, service: Service, options: ReplyOptions) -> dict[str, Any] | list[dict[str, Any]]:
    """The predictions of the images of a request: one answer, or a list of them for several images.

    Raises:
        Refusal: with the status code of what is wrong.
    """
    check_token(request, service.config.token)
    batcher = service.batcher
    if batcher.is_full:  # before the upload, which would be useless
        raise Refusal(503, "the queue is full; try again", retry_after=batcher.retry_after, unread=True)
    with Upload(request, service.config, service.held) as upload:
        files = await upload.files()
        sizes = await run_in_threadpool(check_files, files, service.config)
        try:
            futures = batcher.submit(files)
        except QueueFull as error:
            raise Refusal(503, "the queue is full; try again", retry_after=error.retry_after) from None
        except Stopped:
            raise Refusal(503, "the server is stopping", retry_after=5) from None
        results = await _results(futures, request, service.config.deadline)
    for number, result in enumerate(results, start=1):
        if isinstance(result, Exception):
            raise _refusal(result, number)
    try:
        replies = [
            await run_in_threadpool(to_reply, result, size, service.model, options)
            for result, size in zip(results, sizes, strict=True)
        ]
    except DataError as error:
        raise Refusal(500, str(error)) from None
    return replies[0] if len(replies) == 1 else replies


def _refusal(error: Exception, number: int) -> Refusal:
    """The fixed text for an image without a prediction; the reason may contain names of the server."""
    if isinstance(error, Stopped):
        return Refusal(503, "the server is stopping", retry_after=5)
    if isinstance(error, MemoryError):
        return Refusal(413, f"file {number} does not fit into the memory")
    if isinstance(error, (DataError, OSError)):
        return Refusal(400, UNREADABLE.format(number))
    return Refusal(500, f"file {number} could not be predicted; the log of the server has the reason")


async def _results(futures: Sequence[asyncio.Future[Any]], request: Request, deadline: float) -> list[Any]:
    """Predictions or exceptions; images whose client has gone, or whose deadline has passed, are not predicted."""
    everything: asyncio.Future[Any] = asyncio.gather(*futures, return_exceptions=True)
    gone = asyncio.create_task(_disconnected(request))
    first: list[asyncio.Future[Any]] = [everything, gone]
    try:
        await asyncio.wait(first, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        if everything.done():
            results: list[Any] = everything.result()
            return results
        if gone.done():
            raise Refusal(499, "the client closed the connection")
        raise Refusal(504, f"no prediction within {deadline:g} seconds", retry_after=1)
    finally:
        everything.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
