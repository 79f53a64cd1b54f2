"""The pages: one file each, nothing from the network, no sideways scrolling; and the files for a deployment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import detseg
from detseg.errors import DataError
from detseg.options import ServeConfig

ROOT = Path(detseg.__file__).parent
PAGE = (ROOT / "serving" / "page.html").read_text(encoding="utf-8")
DEPLOY = ROOT / "serving" / "deploy"


class Elements(HTMLParser):
    """All elements of a page, and whether each is closed."""

    VOID = ("meta", "input", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def loads_from_elsewhere(text: str) -> list[str]:
    """Attributes and calls that would load something of another server."""
    return re.findall(r"""(?:src|href|url|import|fetch)\s*[=(]\s*["']?(?:https?:)?//[^"')\s]+""", text)


def test_the_page_is_one_file_without_network() -> None:
    parsed = Elements(PAGE)
    assert parsed.open == []
    assert not loads_from_elsewhere(PAGE)
    assert not any(tag in ("iframe", "img") for tag, _ in parsed.elements)
    links = [attributes for tag, attributes in parsed.elements if tag == "link"]
    assert links == [{"rel": "icon", "href": "data:,"}], "without it, browsers ask for /favicon.ico"
    assert not any("src" in attributes for _, attributes in parsed.elements)
    assert loads_from_elsewhere('<script src="https://cdn.example/x.js">'), "control"
    assert loads_from_elsewhere("url(//fonts.example/a)"), "control"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_of_the_page_draws_an_answer(tmp_path: Path) -> None:
    """With a document that only records: an image is chosen, sent, and its answer drawn above the chosen score."""
    (script,) = re.findall(r"<script>(.*?)</script>", PAGE, flags=re.DOTALL)
    model = {"task": "segment", "classes": ["bolt", "<b>nut</b>"], "skeleton": [[0, 1]]}
    item = {"score": 0.9, "box": [1, 2, 30, 40], "mask": [[1, 2, 30, 2, 30, 40]], "keypoints": [[1, 2, 1], [3, 4, 1]]}
    objects = [{"class_name": "<b>nut</b>", **item}, {"class_name": "bolt", **item, "score": 0.3}]
    answers = {"model": model, "predict?masks=polygon&top=10": {"width": 64, "height": 48, "objects": objects}}
    file = tmp_path / "page.js"
    file.write_text(
        (Path(__file__).with_name("document.js").read_text(encoding="utf-8") + script).replace(
            "ANSWERS", json.dumps(answers)
        )
        + "\nafterwards();\n",
        encoding="utf-8",
    )
    result = subprocess.run(["node", str(file)], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    calls = json.loads(result.stdout)
    assert calls["texts"] == ["<b>nut</b> 0.90"]
    assert calls["rectangles"] == [[1, 2, 29, 38]]
    assert calls["rows"] == 1
    assert calls["rows at 0.2"] == 2, "control: a lower score shows more"
    assert calls["size"] == [64, 48]
    assert not calls["error"]


def test_the_page_has_its_controls_with_labels() -> None:
    elements = Elements(PAGE).elements
    inputs = {attributes["id"]: attributes for tag, attributes in elements if tag == "input"}
    assert inputs["camera"]["capture"] == "environment"
    assert inputs["score"]["type"] == "range"
    labels = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    assert {"token", "score"} <= labels
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert set(re.findall(r'byId\("([\w-]+)"\)', PAGE)) <= ids
    assert "innerHTML" not in PAGE, "names of classes are text"


def test_the_page_is_no_wider_than_a_phone() -> None:
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in Elements(PAGE).elements
    widths = re.findall(r"(?<![-\w])(?:min-)?width:\s*([\d.]+)(rem|px)", PAGE)
    assert all(float(number) * (16 if unit == "rem" else 1) <= 390 - 32 for number, unit in widths)
    assert re.search(r"canvas \{[^}]*max-width: 100%", PAGE)
    assert PAGE.count("flex-wrap: wrap") == PAGE.count("display: flex")
    assert "overflow-wrap: anywhere" in PAGE


def test_pages_of_the_server() -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    pytest.importorskip("httpx", reason="httpx is not installed")
    from starlette.testclient import TestClient

    from detseg.serving.app import create_app
    from tests.serving.stub_server import StubModel

    with TestClient(create_app(StubModel(), ServeConfig(root_path="/parts"))) as client:
        page, docs = client.get("/"), client.get("/docs")
        assert page.text == PAGE
        for answer in (page, docs):
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert not loads_from_elsewhere(answer.text)
            assert Elements(answer.text).open == []
        assert "POST /predict" in docs.text
        for link in re.findall(r'<a href="([^"]+)"', page.text + docs.text):
            assert not link.startswith("/"), "relative, so that it works behind a proxy"
            assert client.get(f"/parts/{link}").status_code == 200
        for path in re.findall(r'ask\("([a-z]+)', PAGE):
            assert client.get(f"/parts/{path}").status_code in (200, 405)
        # nginx strips the path, other proxies do not
        assert client.get("/parts/readyz").json() == client.get("/readyz").json()
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/parts"}]


def nginx_values(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\s*(\w+) ([^;{]+);", text, flags=re.MULTILINE))


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_the_files_for_a_deployment_agree_with_the_defaults() -> None:
    config = ServeConfig()
    nginx = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    values = nginx_values(nginx)
    assert values["client_max_body_size"] == f"{config.max_megabytes}m"
    assert seconds(values["proxy_read_timeout"]) > config.upload_seconds + config.deadline
    assert nginx.count("{") == nginx.count("}")
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["detseg"]
    assert seconds(service["stop_grace_period"]) > config.upload_seconds + config.deadline + 10
    path = service["command"][service["command"].index("--root-path") + 1]
    assert f"location {path}/ {{" in nginx
    assert (ROOT.parent / service["build"]["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["proxy"]["ports"])


def test_the_wheel_has_the_page_and_the_files_for_a_deployment() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["detseg"]
    packed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    others = {path for path in (ROOT / "serving").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(others) == 5
    assert others <= packed
    extras = project["project"]["optional-dependencies"]
    assert set(extras["serve"]) < set(extras["dev"])


def test_the_command_of_the_image_parses() -> None:
    from detseg.cli import parse

    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", text, flags=re.MULTILINE)
    name, verb, *arguments = yaml.safe_load(entry)
    config = parse(verb, [*arguments, "--root-path", "/detseg"])
    assert (name, config.run, config.host) == ("detseg", "/run-folder", "0.0.0.0")
    assert f"EXPOSE {config.port}\n" in text
    assert re.search(r"^USER (?!root)", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "options",
    [
        {"root_path": "parts"},
        {"root_path": "/parts/"},
        {"max_files": 65},
        {"token": "a\nb"},
        {"token": "ü"},
        {"port": -1},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="--"):
        ServeConfig(**options)
    ServeConfig(root_path="/parts", max_files=64, token="a", port=0)  # control
