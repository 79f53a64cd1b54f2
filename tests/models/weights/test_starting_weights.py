"""Starting weights are read once and checked at one place, whichever functions need them."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.checkpoints.checkpoint import load, load_checkpoint, save_checkpoint
from detseg.checkpoints.tensor_file import SCHEMA, CorruptFileError
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.models import MODELS, StartingWeights, build_model, describe, load_weights, read_state_dict
from detseg.models.create import create_model
from detseg.models.weights import safetensors_file
from detseg.models.weights.bundled import BUNDLED, read_bundled
from detseg.models.weights.published import cache_path
from detseg.models.weights.starting_weights import Origin
from detseg.options import TrainConfig
from detseg.runtime.checksum import BLANK, fill_checksum
from detseg.runtime.machine import MachineFacts
from detseg.training.anchors import fitted_anchor_sizes
from detseg.training.fit import fit, new_model
from detseg.training.make_plan import make_plan, named_weights

SLIM = "maskrcnn_mobilenet_v3_large_fpn_slim"
CLASSIFIER = "mobilenet_v3_small"
CLASSES = ClassMap(("ant", "bee"))
FORMS = ("checkpoint", "run folder", "safetensors", "state dict")


class Opens:
    """Counts how often a file is opened, by Python or by safetensors."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def note(self, file: Any) -> None:
        if isinstance(file, (str, os.PathLike)):
            self.paths.append(Path(os.fspath(file)).resolve())

    def of(self, path: str | Path) -> int:
        path = Path(path).resolve()
        return self.paths.count(path / "best.safetensors" if path.is_dir() else path)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opens]:
    """Count calls of ``open``, ``Path.open``, ``Path.read_bytes``, ``os.open``, ``torch.load`` and of safetensors."""
    counter = Opens()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, *arguments: Any, **options: Any) -> Any:
            counter.note(file)
            return function(file, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", counted(builtins.open))  # torch.load
        patch.setattr(io, "open", counted(io.open))  # pathlib
        patch.setattr(os, "open", counted(os.open))
        safe_open = counted(safetensors.safe_open)
        for module in (safetensors, safetensors.torch):  # the second for load_file
            patch.setattr(module, "safe_open", safe_open)
        yield counter


def saved(folder: Path, form: str, arch: str = SLIM) -> str:
    """Write a randomly initialized model in one of the ``FORMS``; return the value of ``--weights``."""
    model = build_model(describe(arch, CLASSES, weights="none"))
    path = folder / ("net.pth" if form == "state dict" else "best.safetensors")
    if form in ("checkpoint", "run folder"):
        save_checkpoint(path, model)
    elif form == "safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return str(folder if form == "run folder" else path)


def table() -> AnnotationTable:
    """Return a table of one image with one small box."""
    builder = TableBuilder(CLASSES, ".", source="test")
    builder.add_image("a.jpg", (400, 400))
    builder.add_instance([0, 0, 9, 9], 1)
    return builder.build()


def use(weights: str | StartingWeights) -> list[Any]:
    """Call everything that depends on starting weights, as a run does; return the results."""
    description = describe(SLIM, CLASSES, weights=weights)
    sizes = fitted_anchor_sizes(SLIM, weights, table(), description.preprocessing)
    torch.manual_seed(0)
    model = build_model(description)
    report = load_weights(model, weights)
    opened = StartingWeights.open(weights, SLIM)
    return [description, sizes, report, opened.classes, opened.title, opened.origin(), opened.kind, opened.description]


@pytest.mark.parametrize("opener", ["open", "read_bytes", "Path.open", "torch.load", "load_file", "safe_open"])
def test_control_every_way_to_open_a_file_is_counted(opens: Opens, tmp_path: Path, opener: str) -> None:
    torch_file, path = Path(saved(tmp_path, "state dict")), Path(saved(tmp_path, "safetensors"))
    before = opens.of(path), opens.of(torch_file)
    if opener == "open":
        open(path, "rb").close()  # noqa: PTH123
    elif opener == "read_bytes":
        path.read_bytes()
    elif opener == "Path.open":
        path.open("rb").close()
    elif opener == "torch.load":
        torch.load(torch_file, weights_only=True)
    elif opener == "load_file":
        safetensors.torch.load_file(path)
    else:
        with safetensors.safe_open(path, framework="pt"):
            pass
    after = opens.of(path), opens.of(torch_file)
    assert after == ((before[0], before[1] + 1) if opener == "torch.load" else (before[0] + 1, before[1]))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_read_once(opens: Opens, tmp_path: Path, form: str) -> None:
    path = saved(tmp_path, form)
    opens.paths.clear()
    weights = StartingWeights.open(path, SLIM)
    assert opens.of(path) == 0, "opening reads nothing"
    results = use(weights)
    assert opens.of(path) == 1
    weights.release()
    assert weights.origin() == results[5]
    file = Path(path) / "best.safetensors" if form == "run folder" else Path(path)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    opens.paths.remove(file.resolve())  # opened by the line above
    assert weights.origin() == Origin(f"{file.name}, sha256 {checksum}", file)
    assert weights.kind == ("file" if form in ("safetensors", "state dict") else "checkpoint")
    assert opens.of(path) == 1, "the origin is known without the tensors"
    again = use(path)
    assert [str(item) for item in again] == [str(item) for item in results], "a path gives the same results"
    assert opens.of(path) > 2, "control: a path is read by each function"


def test_released_weights_are_read_again(opens: Opens, tmp_path: Path) -> None:
    path = saved(tmp_path, "checkpoint")
    opens.paths.clear()
    weights = StartingWeights.open(path)
    state = weights.state
    weights.release()
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.state.items())
    assert opens.of(path) == 2


def test_the_bundled_weights_of_the_demo_set_are_read_once(opens: Opens) -> None:
    def start(opened: StartingWeights | None) -> int:
        opens.paths.clear()
        plan = make_plan(TrainConfig(), data, data, MachineFacts("cpu"), weights=opened)
        assert plan.model.weights == BUNDLED
        new_model(data, plan, opened)
        return opens.of(path)

    builder = TableBuilder(CLASSES, ".", source="test")
    builder.add_image("a.jpg", (40, 40))
    builder.add_instance([0, 0, 9, 9], 1, segmentation=[np.array([[0.0, 0.0], [9.0, 0.0], [9.0, 9.0]])])
    data, path = builder.build(), read_bundled()[0]
    assert start(named_weights(TrainConfig())) == 1
    assert start(None) == 2, "control: one opened by the plan, one by the model"


@pytest.mark.parametrize("arch", [SLIM, CLASSIFIER])
def test_a_run_reads_its_starting_weights_once(opens: Opens, parts: Path, tmp_path: Path, arch: str) -> None:
    (tmp_path / "start").mkdir()
    path = saved(tmp_path / "start", "checkpoint", arch)
    data = parts if arch == SLIM else image_folder(tmp_path / "images")
    options = TrainConfig(
        data=str(data), model=arch, weights=path, epochs=1, image_size=64, subset=4, batch_size=2, workers=0,
        device="cpu", val=0.3, output=str(tmp_path / "run"),
    )  # fmt: skip
    opens.paths.clear()
    fit(options)
    assert opens.of(path) == 1
    assert opens.of(tmp_path / "run" / "best.safetensors") > 0, "control: files of the run are counted"


def test_published_weights_are_loaded_once(opens: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(MODELS, SLIM, replace(MODELS[SLIM], coco=entry))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: torch.load(cache_path(url)))
    cached = cache_path(entry.url)
    cached.parent.mkdir(parents=True)
    torch.save(build_model(describe(SLIM, CLASSES, weights="none")).state_dict(), cached)
    opens.paths.clear()
    weights = StartingWeights.open("coco", SLIM)
    use(weights)
    create_model(SLIM, CLASSES, weights=weights)
    assert opens.of(cached) == 1
    assert weights.kind == "coco"
    assert weights.title == f"coco ({cached.name})"
    assert weights.classes is not None
    assert len(weights.classes.names) == 91
    use(StartingWeights.open("coco", SLIM))
    assert opens.of(cached) == 2, "control: opened twice, loaded twice"


def test_published_weights_depend_on_the_model_and_files_do_not(tmp_path: Path) -> None:
    published = StartingWeights.open("imagenet", "resnet18")
    assert StartingWeights.open(published, "resnet18") is published
    other = StartingWeights.open(published, "resnet34")
    assert (other.source, other.arch) == ("imagenet", "resnet34")
    file = StartingWeights.open(tmp_path / "a.pth", "resnet18")
    assert StartingWeights.open(file, "resnet34") is file
    none = StartingWeights.open("none", "resnet18")
    assert (none.kind, none.classes, none.description, none.title) == ("none", None, None, "none")
    with pytest.raises(DataError, match=r"weights none: there are no tensors; use coco"):
        _ = none.state


def flipped(path: Path, bit: int | None = None) -> Path:
    """Flip one bit of a file, by default in the middle, in a tensor."""
    content = bytearray(path.read_bytes())
    bit = 4 * len(content) if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return path


def image_folder(folder: Path) -> Path:
    """Write ten images of two classes, one folder per class."""
    rng = np.random.default_rng(0)
    for name in CLASSES.names:
        (folder / name).mkdir(parents=True)
        for number in range(5):
            image = PIL.Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
            image.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "data")


def command(*arguments: str | Path) -> str:
    """Run the command line; return what it prints, or raise it as an error."""
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", text)
        patch.setattr("sys.stderr", text)
        code = main([str(argument) for argument in arguments])
    if code:
        raise DataError(text.getvalue())
    return text.getvalue()


def ways_in(path: Path, images: Path, new: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a checkpoint of a classifier is read, except ``--resume``."""
    options = ("--image-size", "40", "--epochs", "1", "--device", "cpu", "--output", new)
    return {
        "read_state_dict": lambda: read_state_dict(path),
        "describe": lambda: describe(CLASSIFIER, CLASSES, weights=str(path)),
        "load_weights": lambda: load_weights(build_model(describe(CLASSIFIER, CLASSES, weights="none")), str(path)),
        "create_model": lambda: create_model(CLASSIFIER, CLASSES, weights=str(path)),
        "fitted_anchor_sizes": lambda: fitted_anchor_sizes(
            SLIM, str(path), table(), describe(SLIM, CLASSES, weights="none").preprocessing
        ),
        "load": lambda: load(path),
        "load_checkpoint": lambda: load_checkpoint(path),
        "Predictor": lambda: Predictor(path, "cpu"),
        "train --weights": lambda: command("train", images, "--model", CLASSIFIER, "--weights", path, *options),
        "evaluate": lambda: command("evaluate", path, images, "--device", "cpu", "--output", new),
        "predict": lambda: command("predict", path, images, "--device", "cpu", "--output", new),
    }


WAYS = tuple(ways_in(Path(), Path(), Path()))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a classifier's checkpoint."""
    path = tmp_path_factory.mktemp("intact") / "best.safetensors"
    save_checkpoint(path, build_model(describe(CLASSIFIER, CLASSES, weights="none", image_size=40)))
    return path.read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_a_flipped_bit_is_refused_by_name(intact: bytes, images: Path, tmp_path: Path, way: str) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(intact)
    ways_in(path, images, tmp_path / "control")[way]()  # control: the intact file is accepted
    flipped(path)
    with pytest.raises(DataError, match=r"mine\.safetensors: corrupt, its checksum does not match"):
        ways_in(path, images, tmp_path / "new")[way]()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_newer_schema_is_not_called_corrupt(intact: bytes, images: Path, tmp_path: Path, way: str) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(with_schema(intact, SCHEMA + 1))
    with pytest.raises(DataError, match=rf"mine\.safetensors: unknown schema {SCHEMA + 1} .*; upgrade detseg") as error:
        ways_in(path, images, tmp_path / "new")[way]()
    assert "corrupt" not in str(error.value)
    assert not isinstance(error.value, CorruptFileError)


def with_schema(content: bytes, schema: int) -> bytes:
    """Return the same tensors with the schema of another version, and a correct checksum."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8:end])["__metadata__"]["detseg"]) | {"schema": schema, "sha256": BLANK}
    again = safetensors.torch.save(safetensors.torch.load(content), metadata={"detseg": json.dumps(header)})
    return fill_checksum(again, 8 + int.from_bytes(again[:8], "little"))


def test_a_flipped_bit_is_refused_on_resume(images: Path, tmp_path: Path) -> None:
    run, options = tmp_path / "run", ("--model", CLASSIFIER, "--weights", "none", "--image-size", "40")
    command("train", images, *options, "--epochs", "2", "--device", "cpu", "--output", run)
    warning = "last.safetensors: corrupt, its checksum does not match"
    assert warning not in command("train", "--resume", run, "--epochs", "3"), "control"
    flipped(run / "last.safetensors")
    assert warning in command("train", "--resume", run, "--epochs", "4"), "the previous checkpoint is used"
    for path in run.glob("last*.safetensors"):
        flipped(path)
    with pytest.raises(DataError, match=r"no checkpoint of this run can be read \(.*last\.safetensors\.damaged"):
        command("train", "--resume", run, "--epochs", "5")


def small_checkpoint(path: Path) -> Path:
    """Write a checkpoint of less than 2 kB."""
    torch.manual_seed(0)
    save_checkpoint(path, nn.Linear(2, 1), description={})
    assert path.stat().st_size < 2000
    return path


def accepted_flips(path: Path) -> list[int]:
    """Return the bits whose flip ``read_state_dict`` does not notice."""
    content, accepted = path.read_bytes(), []
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            read_state_dict(path)
            accepted.append(bit)
        except DataError as error:
            assert path.name in str(error)  # noqa: PT017
    return accepted


def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    assert accepted_flips(small_checkpoint(tmp_path / "a.safetensors")) == []


def test_control_without_the_checksum_flipped_bits_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_checkpoint(tmp_path / "a.safetensors")
    monkeypatch.setattr(safetensors_file, "checksum_matches", lambda content, end: True)
    tensors = 8 * 3 * 4  # bits of two weights and a bias
    assert len(accepted_flips(path)) > tensors


def test_a_file_of_another_program_needs_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensors = {name: torch.full((2,), float(number)) for number, name in enumerate("gfedcbah")}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    weights = StartingWeights.open(path)
    assert (weights.kind, weights.description, weights.classes) == ("file", None, None)
    assert weights.title == str(path)
    assert weights.origin().summary.startswith("other.safetensors, sha256 ")
    state = read_state_dict(weights)
    assert list(state) == sorted(tensors), "reports list the names in the same order each time"
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)


def test_a_type_that_torch_does_not_have_is_not_called_corrupt(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "new.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(DataError, match=r"new\.safetensors: torch has no tensors of type 'F4'; save the file again"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("weights", "summary"),
    [("none", "random"), ("imagenet", "imagenet (resnet18-f37072fd.pth)")],
)
def test_the_origin_of_other_weights_is_stated_without_a_download(
    weights: str, summary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloaded"))
    origin = StartingWeights.open(weights, "resnet18").origin()
    assert (origin.summary, origin.path) == (summary, None)
