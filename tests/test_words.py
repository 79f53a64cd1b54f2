"""One word per meaning: old names and words that are not English of the field appear nowhere that people read."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OLD_NAMES = """
    Feed Keeper Every Interruption interruption Damaged class_rows keypoint_rows carry_rows RowMatch KeptAnchors
    LeanRoIHeads loss_mode PartedModel PyramidModel Notes DrawnImage Place Places from_first brisk patient of_logits
    of_boxes aims waited body_lr last_lr tune_lr probe_epochs lying overhead peer plain_peer keeper generation sealed
    seal body bodies picture pictures truth truths LabelledPictures sums found wanted given
"""
NAMES = frozenset(re.findall(r"\w+", OLD_NAMES))
"""Names of earlier versions, and names that carry no meaning; nothing in ``detseg`` and ``tools`` has one of them."""

PHRASES = (
    r"pictures?", r"(?<!backbone\.)bod(?:y|ies)", r"(?<!ground )(?<!ground-)(?<!ground_)truths?", r"anew",
    r"anybody(?:'s)?", r"somebody(?:'s)?", r"whoever", r"so many", r"what learns", r"lying", r"overhead",
    r"probe-then-tune", r"plain way", r"plain loop", r"peers?", r"keepers?", r"sealed", r"in silence", r"chose nothing",
    r"to learn from", r"by heart",
    r"for ever", r"leave at once", r"the door", r"--map", r"--keep", r"--last-lr", r"--body-lr", r"--tune-lr",
    r"--recipe",
)  # fmt: skip
"""Words and options that no text uses, as regular expressions for whole words in any case."""

PATTERN = re.compile(rf"(?<![\w-])(?:{'|'.join(PHRASES)})(?![\w-])", re.IGNORECASE)
ALLOWED = (
    ("detseg/old_names.py", ""),  # the old names themselves
    ("tests/test_words.py", ""),
    ("tests/compatibility/", ""),
    ("tests/compare_trees.py", ""),  # calls both versions by the old names
    ("CHANGELOG.md", "->"),  # lists of old and new names
    ("detseg/annotations/listing.py", '"pictures"'),  # a folder name of users
    ("detseg/serving/refusal_response.py", "body"),  # messages of ASGI
    ("tests/export/test_int8.py", "body"),  # names of nodes, from those of torchvision
    ("detseg/runtime/processes.py", "closed by peer"),  # a message of gloo
)
"""(path begins with, line contains): where they may stand."""

SOURCES = [
    path
    for folder in ("detseg", "tools", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not any(path.relative_to(ROOT).as_posix().startswith(start) for start, line in ALLOWED if start and not line)
]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / ".github").glob("*.md"))] + [
    path for folder in ("detseg", "tools", "tests", "data") for path in sorted((ROOT / folder).rglob("*.md"))
]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every string and comment of a Python source."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            for number, line in enumerate(token.string.splitlines()):
                yield token.start[0] + number, line


def names(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every name of a Python source; torchvision's attribute ``backbone.body`` is none."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and not (token.string == "body" and re.search(r"\.body\b|body=", token.line)):
            yield token.start[0], token.string


def is_allowed(path: Path, line: str) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return any(name.startswith(start) and (line_part.lower() in line.lower()) for start, line_part in ALLOWED)


def forbidden_texts(path: Path, lines: Iterator[tuple[int, str]]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()!r} in {line.strip()[:100]}"
        for number, line in lines
        for match in PATTERN.finditer(line)
        if not is_allowed(path, line)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_strings_and_comments(path: Path) -> None:
    assert forbidden_texts(path, texts(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if ROOT / "tests" not in path.parents], ids=lambda path: path.stem
)
def test_names(path: Path) -> None:
    forbidden = [f"{number}: {name}" for number, name in names(path.read_text(encoding="utf-8")) if name in NAMES]
    assert forbidden == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    if not path.is_relative_to(ROOT / "tests" / "compatibility"):
        assert forbidden_texts(path, lines) == []


def test_control_old_words_are_seen() -> None:
    source = 'class Keeper:\n    """Keeps the picture."""\n    truth = 1  # drawn anew\n'
    assert [name for _, name in names(source) if name in NAMES] == ["Keeper", "truth"]
    assert len(forbidden_texts(ROOT / "detseg" / "x.py", texts(source))) == 2
    assert not forbidden_texts(ROOT / "detseg" / "x.py", iter([(1, "the ground truth of backbone.body, an image")]))
