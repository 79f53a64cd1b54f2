"""The page of the server in a real browser: an image is dropped, its objects are drawn, the slider selects them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import DESKTOP, PHONE, Browser
from tests.serving.conftest import started

pytest.importorskip("fastapi", reason="the extra serve is not installed")

CHANGED = """
(() => {  // shares of pixels that are drawn over the image: on the left edge of the first box, in it, outside all boxes
  const { width, height } = canvas, scale = width / reply.width;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const now = copy.getImageData(0, 0, width, height).data;
  window.plain ||= now;
  const differs = (x, y) => [0, 1, 2].some((i) => now[4 * (y * width + x) + i] !== plain[4 * (y * width + x) + i]);
  const boxes = reply.objects.map((item) => item.box.map((value) => Math.round(value * scale)));
  const counts = { edge: [0, 0], inside: [0, 0], outside: [0, 0] };
  const count = (part, x, y) => { counts[part][0] += differs(x, y); counts[part][1] += 1; };
  const [x1, y1, x2, y2] = boxes[0];
  for (let y = y1 + 1; y < y2 - 1; y++) count("edge", Math.min(x1, width - 1), y);
  for (let y = y1 + 4; y < y2 - 4; y++) for (let x = x1 + 4; x < x2 - 4; x++) count("inside", x, y);
  const far = ([a, b, c, d], x, y) => x < a - 200 || x > c + 200 || y < b - 24 || y > d + 24;  // with its label
  const shown = boxes.filter((_, i) => reply.objects[i].score >= Number(byId("score").value));
  for (let y = 0; y < height; y += 3) for (let x = 0; x < width; x += 3)
    if (shown.every((box) => far(box, x, y))) count("outside", x, y);
  return Object.fromEntries(Object.entries(counts).map(([part, [changed, all]]) => [part, changed / Math.max(1, all)]));
})()
"""
ROWS = "document.querySelectorAll('#table tr').length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the bundled Mask R-CNN, which finds drawn shapes."""
    from detseg import create_model
    from detseg.checkpoints import save_checkpoint
    from detseg.classes import ClassMap
    from detseg.synthetic.scenes import SHAPE_FAMILIES

    arch, path = "maskrcnn_mobilenet_v3_large_fpn_slim", tmp_path_factory.mktemp("page") / "model.safetensors"
    save_checkpoint(path, create_model(arch, ClassMap(tuple(SHAPE_FAMILIES)), weights="bundled", image_size=240).model)
    command = [sys.executable, "-m", "detseg", "serve", str(path), "--port", "0", "--device", "cpu"]
    process, port = started(command)
    yield f"http://127.0.0.1:{port}/"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def move_slider(browser: Browser, score: float) -> None:
    browser.run(f"(() => {{ byId('score').value = {score}; byId('score').dispatchEvent(new Event('input')); }})()")


@pytest.mark.slow
def test_an_image_is_dropped_and_its_objects_are_drawn(server: str, parts: Path) -> None:
    image = next((parts / "train").glob("*.jpg"))
    with Browser() as browser:
        for size in (DESKTOP, PHONE):
            browser.open(server, size)
            assert browser.overflow() == 0, size
            browser.wait_for("model")
            browser.drop(image, "#drop")
            browser.wait_for("reply && / ms$/.test(byId('message').textContent)")
            assert browser.overflow() == 0, size
            move_slider(browser, 1)
            assert browser.run(CHANGED) == {"edge": 0, "inside": 0, "outside": 0}, "control: nothing is drawn"
            assert browser.run(ROWS) == 0
            move_slider(browser, 0.5)
            drawn = browser.run(CHANGED)
            assert drawn["edge"] > 0.9, drawn
            assert drawn["inside"] > 0.2, "the mask"
            assert drawn["outside"] == 0, drawn
            few = browser.run(ROWS)
            move_slider(browser, 0)
            assert 0 < few < browser.run(ROWS) == browser.run("reply.objects.length")
        browser.open(f"{server}docs", PHONE)
        assert browser.overflow() == 0
        assert all(url.startswith(server) for url in browser.requests), browser.requests
        assert not browser.problems


@pytest.mark.slow
def test_control_what_is_wrong_with_a_page_is_seen(server: str, tmp_path: Path) -> None:
    """Another host is refused by the policy of the page, and seen; so are errors of scripts, texts, and a wide page."""
    text = tmp_path / "text.png"
    text.write_text("no image")
    with Browser() as browser:
        browser.open(server, PHONE)
        browser.drop(text, "#drop")
        browser.wait_for("byId('message').className === 'error'")
        assert browser.run("byId('message').textContent").startswith("file 1 is not a readable image")
        assert any("415" in problem for problem in browser.problems)
        browser.problems.clear()
        browser.run("fetch('http://example.invalid/').catch(() => 0)")
        assert any("Content Security Policy" in problem for problem in browser.problems)
        browser.problems.clear()
        browser.run("setTimeout(() => { throw new Error('broken'); })")
        browser.wait_for("new Promise((resolve) => setTimeout(() => resolve(true), 50))")
        assert any("broken" in problem for problem in browser.problems)
        browser.run("byId('about').style.width = '500px'")
        assert browser.overflow() > 100
