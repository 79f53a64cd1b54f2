"""``sheet.html`` in a real browser: its filters work, nothing is loaded, a phone needs no sideways scrolling."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.cli import main
from tests.browser import DESKTOP, PHONE, Browser

SHOWN = "document.querySelectorAll('figure:not([hidden])').length"


def choose(browser: Browser, filter_id: str, value: str) -> None:
    browser.run(
        f"(() => {{ const filter = document.getElementById({filter_id!r}); filter.value = {value!r};"
        "filter.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.slow
def test_filters_of_the_sheet(parts: Path, tmp_path: Path) -> None:
    assert main(["inspect", str(parts), "--output", str(tmp_path)]) == 0
    with Browser() as browser:
        for size in (DESKTOP, PHONE):
            browser.open((tmp_path / "sheet.html").as_uri(), size)
            total = browser.run(SHOWN)
            assert total == browser.run("document.querySelectorAll('figure').length") > 6
            assert browser.overflow() == 0, size
            assert browser.run("[...document.images].every((image) => image.naturalWidth > 0 || !image.complete)")
            choose(browser, "split", "val")
            val = browser.run(SHOWN)
            assert 0 < val < total
            assert browser.run("document.getElementById('count').textContent") == f"{val} of {total}"
            choose(browser, "kind", "largest")
            assert browser.run(SHOWN) < val
            choose(browser, "split", "*")
            choose(browser, "kind", "*")
            for label in browser.run("[...document.getElementById('class').options].map((option) => option.value)"):
                choose(browser, "class", label)
                assert (browser.run(SHOWN) == total) == (label == ""), label
        browser.run("document.querySelector('h1').style.width = '500px'")
        assert browser.overflow() > 100, "control"
        assert all(url.startswith(("file:", "data:")) for url in browser.requests)
        assert not browser.problems
        browser.screenshot(tmp_path / "sheet.png")
