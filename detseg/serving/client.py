"""Ask a server for predictions. Needs the standard library only."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detseg.errors import DataError

LONGEST_PAUSE = 10.0
"""Most seconds between two attempts, whatever the server says."""

Image = str | os.PathLike[str] | bytes
"""An image file, or its bytes."""


class ServerError(DataError):
    """The server refused a request, or was not reached.

    Attributes:
        status: HTTP status code; 0 without an answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """``Client("http://127.0.0.1:8000").predict("photo.jpg")`` returns the answer of a server.

    Args:
        url: address of the server, with its path behind a proxy.
        token: secret of the server; None if it needs none.
        timeout: seconds to wait for an answer.
        attempts: how often a request is sent if the server is busy (503); it says how long to wait between them.

    Raises:
        DataError: the address is not an HTTP address.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 60, attempts: int = 5) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise DataError(f"{url!r} is not the address of a server; it must be one such as http://127.0.0.1:8000")
        self._url, self._token, self._timeout, self._attempts = url.rstrip("/"), token, timeout, attempts

    def model(self) -> dict[str, Any]:
        """Task, class names and keypoints of the model that is served, see ``detseg.serving.reply.describe``.

        Raises:
            ServerError: the server was not reached, or refused the request.
        """
        return self._object(self._send("/model", None, {}))

    def predict(self, image: Image, **options: str | float) -> dict[str, Any]:
        """The answer for one image, see :mod:`detseg.serving.reply`.

        Args:
            options: ``masks`` ("rle", "polygon" or "none"), ``min_score``, ``top``.

        Raises:
            ServerError: the server was not reached, or refused the image.
            OSError: the file cannot be read.
        """
        return self._object(self._send(_path(options), _content(image), {"Content-Type": "application/octet-stream"}))

    def predict_many(self, images: Sequence[Image], **options: str | float) -> list[dict[str, Any]]:
        """The answers for several images, which are sent in one request; arguments and errors of :meth:`predict`."""
        if not images:
            return []
        content, kind = _form([_content(image) for image in images])
        answers = self._send(_path(options), content, {"Content-Type": kind})
        return [self._object(item) for item in (answers if len(images) > 1 else [answers])]

    def _object(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ServerError(f"{self._url}: the answer is not the one of a detseg server; is the address right?")
        return value

    def _send(self, path: str, content: bytes | None, headers: Mapping[str, str]) -> Any:
        token = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self._url + path, content, {**headers, **token})
        for attempt in range(1, self._attempts + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == self._attempts:
                    raise ServerError(f"{self._url}: {_reason(error)}", error.code) from error
                time.sleep(_pause(error.headers.get("Retry-After", "1")))
            except ValueError as error:
                raise ServerError(f"{self._url}: the answer is not JSON; is the address right?") from error
            except OSError as error:
                reason = getattr(error, "reason", error)
                raise ServerError(f"{self._url}: no answer ({reason}); does the server run?") from error
        raise ServerError(f"{self._url}: no attempt was made; attempts must be at least 1")


def _path(options: Mapping[str, str | float]) -> str:
    return f"/predict?{urllib.parse.urlencode(options)}" if options else "/predict"


def _content(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _form(files: Sequence[bytes]) -> tuple[bytes, str]:
    """A form with the files in the field ``file``, and its content type."""
    boundary = secrets.token_hex(16)
    disposition = b'Content-Disposition: form-data; name="file"; filename="image"\r\n\r\n'
    parts = [b"--" + boundary.encode() + b"\r\n" + disposition + file + b"\r\n" for file in files]
    return b"".join([*parts, b"--", boundary.encode(), b"--\r\n"]), f"multipart/form-data; boundary={boundary}"


def _reason(error: urllib.error.HTTPError) -> str:
    """The text of the server's error; its status if there is none."""
    try:
        return str(json.load(error)["error"])[:500]
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.code} {error.reason}"


def _pause(retry_after: str) -> float:
    return min(LONGEST_PAUSE, float(retry_after)) if retry_after.isdecimal() else 1.0
