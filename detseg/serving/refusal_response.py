"""The answer to a request that is refused."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from detseg.serving.limits import Refusal

LINGER = 5.0
"""Seconds during which the rest of a refused upload is received and dropped: many clients send all of it before they
read the answer, which is lost if the connection is closed before."""


class RefusalResponse(JSONResponse):
    """``{"error": text}``; closes the connection if the client may still be sending."""

    def __init__(self, refusal: Refusal) -> None:
        headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
        if refusal.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if refusal.unread or refusal.status == 408:
            headers["Connection"] = "close"
        super().__init__({"error": refusal.text}, refusal.status, headers)
        self._unread = refusal.unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._unread:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        try:
            async with asyncio.timeout(LINGER):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})
