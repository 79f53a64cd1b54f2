"""The application: answers, limits before decoding, errors with fixed texts, state, token, deadline."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import detseg
from detseg.options import ServeConfig
from detseg.structures import ClassPrediction

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from starlette.testclient import TestClient

from detseg.serving.app import create_app
from tests.serving.files import bomb, noise_jpeg
from tests.serving.stub_server import StubModel

Png = Callable[..., bytes]
JPEG = {"Content-Type": "image/jpeg"}


@contextmanager
def served(model: Any = None, **options: Any) -> Iterator[TestClient]:
    app = create_app(model or StubModel(), ServeConfig(**{"batch_window": 0, **options}))
    with TestClient(app, raise_server_exceptions=False) as client:
        ends = time.monotonic() + 10
        while client.get("/readyz").status_code != 200 and time.monotonic() < ends:
            time.sleep(0.005)
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served() as client:
        yield client


def form(*files: bytes, field: str = "file") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"../../etc/passwd{i}", file)) for i, file in enumerate(files)]


def test_the_server_asks_no_other_server() -> None:
    folder = Path(detseg.__file__).parent / "serving"
    asking = {
        path.name
        for path in folder.glob("*.py")
        if re.search(r"^\s*(?:import|from) (?:urllib|http\b|httpx|requests|aiohttp)", path.read_text(), re.MULTILINE)
    }
    assert asking == {"client.py"}, "control: the client does"


def test_an_image_as_content_or_in_a_form_gives_the_same_answer(client: TestClient, png: Png) -> None:
    raw = client.post("/predict", content=png(), headers=JPEG)
    assert raw.status_code == 200
    assert raw.json() == client.post("/predict", files=form(png())).json()
    first, second = raw.json()["objects"]
    assert (raw.json()["width"], raw.json()["height"]) == (60, 40)
    assert (first["class_name"], first["score"], first["box"]) == ("nut", 0.9877, [0.12, 1.0, 60.0, 40.0])
    assert first["mask"]["size"] == [40, 60]
    assert second["class_name"] == "bolt"


def test_several_images_give_a_list_in_their_order(client: TestClient, png: Png) -> None:
    widths = [33, 64, 7, 50]
    answers = client.post("/predict", files=form(*(png(width, 20) for width in widths))).json()
    assert [answer["width"] for answer in answers] == widths
    assert [answer["objects"][0]["box"][2] for answer in answers] == widths


def test_parameters(client: TestClient, png: Png) -> None:
    none = client.post("/predict?masks=none&min_score=0.5", content=png(), headers=JPEG).json()
    assert len(none["objects"]) == 1
    assert "mask" not in none["objects"][0]
    polygon = client.post("/predict?masks=polygon", content=png(), headers=JPEG).json()
    assert isinstance(polygon["objects"][0]["mask"][0][0], float)
    for wrong in ("masks=x", "min_score=2", "top=0", "min_score=nan"):
        answer = client.post(f"/predict?{wrong}", content=png(), headers=JPEG)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(wrong.partition("=")[0])


def test_a_rotated_image_has_its_upright_size(client: TestClient) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(file, "JPEG", exif=exif)
    answer = client.post("/predict", content=file.getvalue(), headers=JPEG).json()
    assert (answer["width"], answer["height"]) == (40, 60)
    assert answer["objects"][0]["mask"]["size"] == [60, 40]


def test_classes(png: Png) -> None:
    class Classifier(StubModel):
        def many(self, images: Any, /) -> list[Any]:
            return [ClassPrediction(np.float32([0.2, 0.8])) for _ in images]

    model = Classifier()
    model.task = "classify"
    with served(model) as client:
        answer = client.post("/predict?top=1", content=png(), headers=JPEG).json()
    assert answer["classes"] == [{"class_name": "nut", "probability": 0.8}]


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "file 1 is empty"),
    "text": (b"hello", 415, "file 1 is not a readable image; it must be one of JPEG"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "file 1 is not a readable image"),
    "gif": (b"GIF89a" + bytes(100), 415, "file 1 is not a readable image"),
    "PNG header only": (b"\x89PNG\r\n\x1a\n", 415, "file 1 is not a readable image"),
    "too many pixels": (bomb(9000, 9000), 413, "file 1 has more than 64 million pixels"),
    "bomb": (bomb(20_000, 20_000), 413, "file 1 has more than 64 million pixels"),
    "long side": (bomb(40_000, 10), 413, "file 1 has more than 64 million pixels"),
    "no pixels": (bomb(0, 10), 415, "file 1 is not a readable image"),
    "truncated JPEG": (noise_jpeg()[:900], 415, "file 1 is not a readable image"),
    "pixels that do not fit the header": (bomb(3000, 3000), 400, "file 1 cannot be decoded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_images_that_are_refused(client: TestClient, name: str) -> None:
    content, status, text = REFUSED[name]
    for answer in (
        client.post("/predict", content=content, headers=JPEG),
        client.post("/predict", files=form(content)),
    ):
        assert (answer.status_code, answer.json().keys()) == (status, {"error"})
        assert answer.json()["error"].startswith(text)
        assert not re.search(r"passwd|/|0x|Traceback|BytesIO", answer.json()["error"])


def test_headers_of_images_are_checked_before_anything_is_decoded(png: Png) -> None:
    model = StubModel()
    with served(model) as client:
        before = len(model.batches)
        assert client.post("/predict", files=form(png(), bomb(9000, 9000))).status_code == 413
        assert client.post("/predict", files=form(png(), b"hello")).status_code == 415
        assert len(model.batches) == before
        assert client.post("/predict", files=form(png(), bomb(3000, 3000))).json()["error"].startswith("file 2")
        assert len(model.batches) > before, "control"


def test_limits_of_a_request(png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detseg.serving.refusal_response.LINGER", 0.05)  # the test client has sent everything
    with served(max_megabytes=0.05, max_files=2, queue_size=2) as client:
        large = bytes(60_000)
        for answer in (
            client.post("/predict", content=large, headers=JPEG),
            client.post("/predict", files=form(large)),
            client.post("/predict", content=iter([large[:30_000], large[30_000:]]), headers=JPEG),  # chunked
        ):
            assert (answer.status_code, answer.json()) == (413, {"error": "the request is larger than 0.05 MiB"})
        assert client.post("/predict", files=form(png(), png())).status_code == 200
        answer = client.post("/predict", files=form(png(), png(), png()))
        assert (answer.status_code, answer.json()) == (400, {"error": "at most 2 files per request"})
        answer = client.post("/predict", files=form(*[png()] * 20))
        assert answer.status_code == 400
        assert client.app.state.batcher.is_ready  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({}, b"x", 415),
        ({"Content-Type": "application/json"}, b'{"url": "http://localhost/secret.png"}', 415),
        ({"Content-Type": "text/uri-list"}, b"file:///etc/passwd", 415),
        ({"Content-Type": "multipart/form-data"}, b"x", 400),
        ({"Content-Type": "multipart/form-data; boundary=a"}, b"--b\r\n", 400),
        ({"Content-Type": "multipart/form-data; boundary=a; charset=nonsense"}, b"--a\r\n\r\nx\r\n--a--\r\n", 400),
        ({"Content-Type": "multipart/form-data; boundary=" + "a" * 5000}, b"x", 400),
        ({"Content-Length": "-5", "Content-Type": "image/png"}, b"x", 413),
    ],
)
def test_requests_that_are_no_images(client: TestClient, headers: dict[str, str], content: bytes, status: int) -> None:
    answer = client.post("/predict", content=content, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_a_form_without_the_field(client: TestClient, png: Png) -> None:
    for answer in (
        client.post("/predict", files=form(png(), field="image")),
        client.post("/predict", files=form(png(), field="image"), data={"file": "a.png"}),
    ):
        assert (answer.status_code, answer.json()) == (400, {"error": "the form has no image file in the field 'file'"})


def test_errors_have_one_form(client: TestClient) -> None:
    assert client.get("/nowhere").json() == {"error": "not found"}
    assert client.get("/predict").json() == {"error": "method not allowed"}
    assert client.get("/..%2f..%2fetc/passwd").status_code == 404


def test_a_failure_of_the_model_is_an_error_without_its_reason(png: Png, caplog: pytest.LogCaptureFixture) -> None:
    model = StubModel()
    with served(model) as client:
        model.fail = RuntimeError("CUDA error at /home/user/secret.cu")
        answer = client.post("/predict", content=png(), headers=JPEG)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "secret.cu" in caplog.text
        model.fail = None
        assert client.post("/predict", content=png(), headers=JPEG).status_code == 200
        model.class_map = None  # type: ignore[assignment]
        assert client.get("/model").json() == {"error": "the request failed; the log of the server has the reason"}
        assert 'detseg_requests_total{code="500"} 2.0' in client.get("/metrics").text


def test_token(png: Png) -> None:
    with served(token="sesame") as client:
        for path, send in (("/predict", client.post), ("/model", client.get), ("/metrics", client.get)):
            for header in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic sesame"}, {"token": "sesame"}):
                answer = send(path, headers=header)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        header = {"Authorization": "Bearer sesame"}
        assert client.post("/predict", content=png(), headers={**JPEG, **header}).status_code == 200
        assert client.get("/metrics", headers=header).status_code == 200
        assert client.get("/livez").status_code == client.get("/").status_code == 200
        answer = client.post("/predict", headers=[(b"Authorization", "Bearer sesäme".encode("latin-1"))])
        assert answer.status_code == 401


def test_a_deadline_is_kept_and_late_images_are_not_predicted(png: Png) -> None:
    model = StubModel()
    with served(model, deadline=0.05, batch_size=1) as client:
        model.delay = 0.3
        codes: list[int] = []

        def send() -> None:
            codes.append(client.post("/predict", content=png(), headers=JPEG).status_code)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert codes == [504] * 4
        assert len(model.batches) == 2, "the warm-up and the first: the others were late before they began"
        time.sleep(0.3)
        model.delay = 0
        assert client.post("/predict", content=png(), headers=JPEG).status_code == 200, "control"


def test_state_and_measurements(png: Png) -> None:
    with served() as client:
        assert client.get("/livez").json() == {"status": "live"}
        assert client.get("/readyz").json() == {"status": "ready"}
        client.post("/predict", files=form(png(), png(), png()))
        client.post("/predict", content=b"x", headers=JPEG)
        text = client.get("/metrics").text
        assert 'detseg_requests_total{code="415"} 1.0' in text
        assert "detseg_batch_size_sum 3.0" in text
        assert "detseg_queue_length 0.0" in text
        assert 'detseg_request_seconds_bucket{le="60.0"}' in text
        assert client.get("/model").json() == {
            "task": "segment", "classes": ["bolt", "nut"], "label_fields": {}, "keypoints": [], "skeleton": [],
        }  # fmt: skip


def test_not_ready_before_the_first_prediction_and_after_the_end() -> None:
    model, gate = StubModel(), threading.Event()
    many = model.many
    model.many = lambda images: (gate.wait(10), many(images))[1]  # type: ignore[method-assign,func-returns-value]
    app = create_app(model, ServeConfig())
    with TestClient(app) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/livez").status_code == 200
        gate.set()
    assert not app.state.batcher.is_ready


def test_a_model_that_hangs_is_not_ready(png: Png) -> None:
    """From the deadline on /readyz says so, while /livez and the page work; when the batch has ended it is ready."""
    gate, model = threading.Event(), StubModel()
    gate.set()
    many = model.many
    model.many = lambda images: (gate.wait(20), many(images))[1]  # type: ignore[method-assign,func-returns-value]
    with served(model, deadline=0.3) as client:
        gate.clear()
        assert client.post("/predict", content=png(), headers=JPEG).status_code == 504
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "a prediction takes longer than 0.3 seconds"}
        assert client.get("/livez").status_code == 200
        gate.set()
        ends = time.monotonic() + 10
        while client.get("/readyz").status_code != 200 and time.monotonic() < ends:
            time.sleep(0.005)
        assert client.get("/readyz").status_code == 200
        assert client.post("/predict", content=png(), headers=JPEG).status_code == 200
    with served(model, deadline=10) as client:
        gate.clear()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.post, "/predict", content=png(), headers=JPEG)
            time.sleep(0.4)
            assert client.get("/readyz").status_code == 200, "control: a batch within the deadline is no fault"
            gate.set()
            assert answer.result(10).status_code == 200


def test_openapi_describes_the_request(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    post = schema["paths"]["/predict"]["post"]
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    assert {item["name"] for item in post["parameters"]} == {"masks", "min_score", "top"}
    assert {"200", "400", "401", "408", "413", "415", "503", "504"} <= set(post["responses"])
    json.dumps(schema, allow_nan=False)
