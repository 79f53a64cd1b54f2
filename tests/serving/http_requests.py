"""Requests to a server on this machine: whole, raw, slow, and many at a fixed rate."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

Answer = tuple[int, dict[str, str], bytes]
LOST: Answer = (0, {}, b"")
"""No answer: the connection was closed."""
UNFINISHED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc"


def post(port: int, content: bytes, path: str = "/predict", kind: str = "image/png", seconds: float = 60) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", path, content, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    except (OSError, http.client.HTTPException):
        return LOST
    finally:
        connection.close()


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def queue_length(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith("detseg_queue_length "))


def memory_mib(process: subprocess.Popen[str], kind: str = "VmRSS") -> float:
    """Memory of a process now, or with "VmHWM" its peak; 0 where the system does not say."""
    file = Path(f"/proc/{process.pid}/status")
    lines = file.read_text().splitlines() if file.exists() else [f"{kind}: 0 kB"]  # Linux only
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def request_bytes(content: bytes) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + content


@dataclass(frozen=True)
class Reply:
    """Status of an answer (0: none), its content, and seconds from the connection to its end."""

    status: int
    content: bytes
    seconds: float


async def send(port: int, request: bytes) -> Reply:
    started = time.monotonic()
    content, writer = b"", None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        content = await reader.read()
    except OSError:
        pass
    finally:
        if writer is not None:
            writer.close()
    status = int(content[9:12]) if content[9:12].isdigit() else 0
    return Reply(status, content.partition(b"\r\n\r\n")[2], time.monotonic() - started)


async def send_at_rate(port: int, request: bytes, rate: float, seconds: float) -> list[Reply]:
    """Replies to ``rate`` requests per second, each on a connection of its own, whether the server keeps up or not."""
    tasks = []
    started = time.monotonic()
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(send(port, request)))
    return list(await asyncio.gather(*tasks))


def slow_senders(port: int, number: int, head: bytes) -> list[socket.socket]:
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(number)]
    for one in sockets:
        one.sendall(head)
    return sockets


def received(one: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    parts = []
    try:
        while part := one.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def raw(port: int, request: bytes) -> bytes:
    """The answer to the bytes of a request; "" if the connection was closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        try:
            one.sendall(request)
            one.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return received(one)
