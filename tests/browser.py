"""A headless Chromium for tests of pages: it is controlled over pipes by its DevTools protocol, without a package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
SECONDS = 30.0
PHONE = (390, 844)
DESKTOP = (1280, 900)
_EXEC = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """A browser with one page. A context manager; skips the test where no Chromium is installed.

    Attributes:
        requests: addresses that the pages asked for.
        problems: texts of errors and warnings of the console, and exceptions of scripts.
    """

    def __init__(self) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None or sys.platform == "win32":
            pytest.skip("no Chromium is installed")
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, answers = os.pipe(), os.pipe()
        # above 4, so that none is overwritten before it is copied to 3 and 4, which Chromium uses
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands[0], answers[1])]
        call = [sys.executable, "-c", _EXEC, *map(str, ends), program, *FLAGS, f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen(
            [*call, "about:blank"], pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end in (*ends, commands[0], answers[1]):
            os.close(end)
        self._write, self._read = commands[1], answers[0]
        self._number, self._buffer, self._session = 0, b"", ""
        self._results: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> Browser:
        pages = self._call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait(10)
        self._folder.cleanup()

    def open(self, url: str, size: tuple[int, int] = DESKTOP) -> None:
        """Load a page in a window of ``size`` (width, height) in pixels; a narrow one is a phone's."""
        width, height = size
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Page.navigate", url=url)
        self.wait_for(f"location.href !== 'about:blank' && document.readyState === 'complete' && '{url}'")

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, or of the promise that it is."""
        result = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < ends, f"not within {SECONDS:g} seconds: {script}; {self.problems}"
            time.sleep(0.05)

    def drop(self, file: Path, selector: str) -> None:
        """Drag a file to the middle of an element, and drop it there."""
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def overflow(self) -> int:
        """By how many pixels the page can be scrolled sideways."""
        return int(self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def screenshot(self, file: Path) -> None:
        """Write a PNG of the whole page."""
        image = self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(image))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + SECONDS
        while self._number not in self._results:
            assert select.select([self._read], [], [], max(0.0, ends - time.monotonic()))[0], f"no answer to {method}"
            content = os.read(self._read, 2**20)
            assert content, "the browser has ended"
            *messages, self._buffer = (self._buffer + content).split(b"\0")
            for item in messages:
                self._take(json.loads(item))
        answer = self._results.pop(self._number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._results[message["id"]] = message
            return
        values = message["params"]
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(values["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(values["exceptionDetails"]["exception"].get("description", "exception"))
            case "Runtime.consoleAPICalled" if values["type"] in ("error", "warning", "assert"):
                self.problems.append(str([item.get("value") for item in values["args"]]))
            case "Log.entryAdded" if values["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
