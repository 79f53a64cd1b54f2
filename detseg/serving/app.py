"""The web application: predictions, pages, state and measurements of one model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from detseg.options import ServeConfig
from detseg.serving.batcher import Batcher
from detseg.serving.limits import FIELD, Held, Refusal
from detseg.serving.measures import MeasuredApp, Measures
from detseg.serving.pages import api_page, try_page
from detseg.serving.predict import Service, answer, check_token
from detseg.serving.refusal_response import RefusalResponse
from detseg.serving.reply import Masks, Model, ReplyOptions, describe
from detseg.version import __version__

_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": [FIELD], "properties": {FIELD: {"type": "array", "items": _FILE}}}
_CONTENT = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _FORM}, "image/*": {"schema": _FILE}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"application/json": {"example": {"error": "..."}}}}
    for code, text in {
        400: "Not a valid request, or an image that cannot be decoded",
        401: "The token is missing or wrong",
        408: "The upload took too long",
        413: "Too many bytes or pixels",
        415: "Not an image of a supported format",
        503: "The queue is full, or the server is stopping; Retry-After has the seconds to wait",
        504: "No prediction within the deadline",
    }.items()
}


def create_app(model: Model, config: ServeConfig) -> FastAPI:
    """The application that serves ``model``. Its predictions begin with the lifespan of the application.

    Args:
        model: a ``Predictor``, or anything with its attributes and its ``many``.
        config: limits, batching, token; ``run``, ``host``, ``port`` and ``device`` are not used.
    """
    batcher = Batcher(
        model.many,
        batch_size=config.batch_size,
        window=config.batch_window / 1000,
        queue_size=config.queue_size,
        longest=config.deadline,
        observe=lambda size: measures.batch(size),
    )
    measures = Measures(lambda: len(batcher))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start(_warm_up_image())
        yield
        await batcher.stop()

    app = FastAPI(
        title="detseg",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from the network
        redoc_url=None,
    )
    app.state.batcher = batcher
    _add_errors(app)
    _add_predictions(app, Service(model, config, batcher, Held()))
    _add_state(app, batcher, measures, config)
    _add_pages(app)
    app.add_middleware(MeasuredApp, measures=measures)
    app.add_middleware(RootPath, path=config.root_path)
    return app


class RootPath:
    """An ASGI application below a path, which proxies may leave out of the requests or not."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "root_path": self._path} if scope["type"] == "http" else scope, receive, send)


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post("/predict", openapi_extra=_CONTENT, responses=_ERRORS)
    async def predict(
        request: Request,
        masks: Annotated[Masks, Query(description="form of the masks: rle, polygon or none")] = "rle",
        min_score: Annotated[float, Query(ge=0, le=1, description="minimum score of detections")] = 0,
        top: Annotated[int, Query(ge=1, le=10_000, description="number of classes of a classifier")] = 5,
    ) -> Response:
        """Predict an image (the content of the request, or a form with the field "file"), or several images (a form),
        which give a list. The images must be JPEG, PNG, WebP, BMP, TIFF or PPM files."""
        return JSONResponse(await answer(request, service, ReplyOptions(masks, min_score, top)))

    @app.get("/model")
    async def model(request: Request) -> Response:
        """The task of the model, and the names of its classes, label fields and keypoints."""
        check_token(request, service.config.token)
        return JSONResponse(describe(service.model))


def _add_state(app: FastAPI, batcher: Batcher, measures: Measures, config: ServeConfig) -> None:
    @app.get("/livez")
    async def livez() -> Response:
        """Whether the server runs."""
        return JSONResponse({"status": "live"})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether the server predicts: 503 before its first prediction, while it stops, and while a batch runs for
        longer than the deadline of a request."""
        if batcher.hangs:
            raise Refusal(503, f"a prediction takes longer than {config.deadline:g} seconds", retry_after=1)
        if not batcher.is_ready:
            raise Refusal(503, "not ready", retry_after=1)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Measurements in Prometheus' text format."""
        check_token(request, config.token)
        return Response(measures.text(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return try_page()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return api_page(app.openapi())


def _add_errors(app: FastAPI) -> None:
    """All errors are ``{"error": text}``."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return RefusalResponse(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        reasons = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
        return RefusalResponse(Refusal(400, "; ".join(reasons), unread=True))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail.lower()}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return RefusalResponse(Refusal(500, "the request failed; the log of the server has the reason"))


def _warm_up_image() -> bytes:
    return bytes(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1])
