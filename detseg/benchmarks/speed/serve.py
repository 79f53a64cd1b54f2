"""Compare ``detseg serve`` with the same model behind one plain endpoint of FastAPI: one process, clients that wait."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from detseg.benchmarks.speed.interleaved_timing import Comparison
from detseg.benchmarks.speed.scenes_set import write_image
from detseg.checkpoints import save_checkpoint
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import build_model, describe
from detseg.runtime.reporter import progress

CLIENTS = (1, 8, 64)
SECONDS = 4.0
"""Of each turn of each server."""
TURNS = 5
MODELS = {"classifier": "mobilenet_v3_large", "SSDLite": "ssdlite320_mobilenet_v3_large"}
TARGET = 1.3
"""Of the ratio with several clients."""


@dataclass(frozen=True)
class Load:
    """The answers of a server to some clients: their number, and the seconds of each, sorted."""

    duration: float
    seconds: list[float]

    def text(self) -> str:
        p50, p99 = (self.seconds[int(share * (len(self.seconds) - 1))] * 1000 for share in (0.5, 0.99))
        return f"{len(self.seconds) / self.duration:.3g} requests per second, p50 {p50:.3g} ms, p99 {p99:.3g} ms"


def compare(device: torch.device) -> list[Comparison]:
    """Random weights, JPEGs of 480 x 640 pixels; each row is a number of clients, in seconds per request."""
    comparisons = []
    with TemporaryDirectory() as folder:
        image = Path(folder) / "image.jpg"
        write_image(image, (480, 640), seed=0)
        request = _request(image.read_bytes())
        for name, arch in MODELS.items():
            path = Path(folder) / f"{arch}.safetensors"
            torch.manual_seed(0)
            save_checkpoint(path, build_model(describe(arch, ClassMap(("a", "b", "c")), weights="none")).eval())
            ours = [sys.executable, "-m", "detseg", "serve", str(path), "--port", "0", "--device", str(device)]
            ours += ["--deadline", "600"]  # slow machines
            theirs = [sys.executable, "-m", "detseg.benchmarks.speed.plain_endpoint", str(path), str(device)]
            with _server(ours) as our_port, _server(theirs) as their_port:
                comparisons += [_compare(name, clients, (our_port, their_port), request) for clients in CLIENTS]
    return comparisons


def _compare(name: str, clients: int, ports: tuple[int, int], request: bytes) -> Comparison:
    loads: tuple[list[Load], list[Load]] = ([], [])
    for port in ports:
        asyncio.run(_load(port, request, clients, SECONDS / 4))
    for turn in progress(range(TURNS), f"{name}, {clients} clients", unit="turn", leave=False):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            loads[side].append(asyncio.run(_load(ports[side], request, clients, SECONDS)))
    ours, theirs = (tuple(load.duration / len(load.seconds) for load in side) for side in loads)
    comparison = Comparison(
        f"serve a {name}, {clients} {'client' if clients == 1 else 'clients'}",
        "one endpoint of FastAPI, in its threads",
        ours,
        theirs,
        TARGET if clients > 1 else None,
    )
    texts = [_together(side).text() for side in loads]
    return replace(comparison, note=f"{texts[0]}; the baseline {texts[1]}")


def _together(loads: list[Load]) -> Load:
    return Load(sum(load.duration for load in loads), sorted(value for load in loads for value in load.seconds))


async def _load(port: int, request: bytes, clients: int, seconds: float) -> Load:
    """Clients that send the request again as soon as they have its answer."""
    started, times = time.perf_counter(), list[float]()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < started + seconds:
            sent = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                raise DataError(f"the server answered {head[:40]!r}; the comparison is not of equal work")
            await reader.readexactly(int(length[1]))
            times.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(time.perf_counter() - started, sorted(times))


def _request(image: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="file"; filename="image.jpg"\r\n\r\n'
    form = b"--x\r\n" + head + image + b"\r\n--x--\r\n"
    lines = (b"POST /predict HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(form))
    return b"\r\n".join([*lines, b"Content-Type: multipart/form-data; boundary=x", b"", form])


@contextmanager
def _server(command: list[str]) -> Iterator[int]:
    """The port of a new process; it is ended afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            match = None
            while match is None:
                line = process.stdout.readline()
                if not line:
                    raise DataError(f"{' '.join(command[1:4])}: the server did not start; its error is above")
                match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            yield int(match[1])
        finally:
            process.terminate()
