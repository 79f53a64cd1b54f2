"""Read the images of a request within limits, which are checked before anything is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from detseg.errors import DataError
from detseg.images import ALLOWED_FORMATS, EncodedImage, ImageTooLarge
from detseg.options import ServeConfig
from detseg.orientation import upright_hw

FIELD = "file"
"""Name of the field of a form that has the images."""

MIB = 2**20
HELD = 512 * MIB
"""Most bytes of all requests together that are being received or answered."""

MAX_FIELDS = 16
"""Most other fields of a form; they are ignored."""

RAW_TYPES = ("image/", "application/octet-stream")
"""Beginnings of the content types of a request that is one image file."""


class Refusal(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status code.
        text: for the user; contains nothing of the server, such as paths.
        retry_after: seconds to wait before the next attempt; 0: the same request will fail again.
        unread: whether the client may still be sending its request.
    """

    def __init__(self, status: int, text: str, *, retry_after: int = 0, unread: bool = False) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after, self.unread = status, text, retry_after, unread


class Held:
    """Bytes that requests occupy, which are limited."""

    def __init__(self, most: int = HELD) -> None:
        self.most, self.now = most, 0

    def add(self, number: int) -> None:
        """Count ``number`` more bytes; a Refusal if they are too many."""
        if self.now + number > self.most:
            raise Refusal(503, "too many uploads at the same time; try again", retry_after=1, unread=True)
        self.now += number


class Upload:
    """The content of one request. A context manager: at its end, the bytes are no longer counted."""

    def __init__(self, request: Request, config: ServeConfig, held: Held) -> None:
        self._request, self._config, self._held = request, config, held
        self._most = round(config.max_megabytes * MIB)
        self._size, self._declared, self._complete = 0, 0, False

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.now -= self._size

    async def files(self) -> list[bytes]:
        """The image files, at least one.

        Raises:
            Refusal: 400 not a form with images, 408 too slow, 413 too large, 415 another content type, 503 too many
                uploads.
        """
        headers, seconds = self._request.headers, self._config.upload_seconds
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most:
            raise self._too_large()
        self._declared = int(length)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            async with asyncio.timeout(seconds):
                if kind == "multipart/form-data":
                    return await self._form_files(headers)
                if kind.startswith(RAW_TYPES):
                    return [b"".join([chunk async for chunk in self._chunks()])]
        except TimeoutError:
            raise Refusal(408, f"the upload took longer than {seconds:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(499, "the client closed the connection") from None
        raise Refusal(415, f"send a form with the field {FIELD!r}, or an image as image/jpeg", unread=True)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._request.stream():
            self._complete = not chunk or self._size + len(chunk) == self._declared
            if self._size + len(chunk) > self._most:
                raise self._too_large()
            self._held.add(len(chunk))
            self._size += len(chunk)
            yield chunk

    async def _form_files(self, headers: Headers) -> list[bytes]:
        most = self._config.max_files
        # one more than allowed: a request with too many files has an error of its own
        parser = MultiPartParser(headers, self._chunks(), max_files=most + 1, max_fields=MAX_FIELDS, max_part_size=MIB)
        parser.spool_max_size = self._most + 1  # in memory
        try:
            form = await parser.parse()
        except (MultiPartException, FormParserError, ValueError):
            text = f"not a valid form (multipart/form-data) with at most {most} files"
            raise Refusal(400, text, unread=not self._complete) from None
        try:
            files = [value for value in form.getlist(FIELD) if isinstance(value, UploadFile)]
            if not files:
                raise Refusal(400, f"the form has no image file in the field {FIELD!r}")
            if len(files) > most:
                raise Refusal(400, f"at most {most} files per request")
            return [await file.read() for file in files]
        finally:
            await form.close()

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is larger than {self._config.max_megabytes:g} MiB", unread=True)


def check_files(files: Sequence[bytes], config: ServeConfig) -> list[tuple[int, int]]:
    """Check the headers of image files; decodes no pixels.

    Returns:
        Height and width of each upright image.

    Raises:
        Refusal: 400 empty, 413 too many pixels, 415 not an image of an allowed format.
    """
    sizes = []
    for number, file in enumerate(files, start=1):
        too_large = Refusal(413, f"file {number} has more than {config.max_megapixels:g} million pixels")
        if not file:
            raise Refusal(400, f"file {number} is empty")
        try:
            header = EncodedImage(file).header
        except ImageTooLarge:
            raise too_large from None
        except DataError:
            text = f"file {number} is not a readable image; it must be one of {', '.join(ALLOWED_FORMATS)}"
            raise Refusal(415, text) from None
        if header.size_hw[0] * header.size_hw[1] > config.max_megapixels * 1e6:
            raise too_large
        sizes.append(upright_hw(header.size_hw, header.orientation))
    return sizes
