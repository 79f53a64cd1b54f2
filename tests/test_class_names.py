"""Class names in options: commas, quotes, equals signs, JSON."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from detseg.class_names import (
    class_names,
    names_with_commas,
    new_names,
    old_names,
    quoted,
    rename_option,
    rename_pairs,
)
from detseg.command_line.commands import COMMANDS
from detseg.command_line.parser import read_options
from detseg.errors import DataError
from detseg.options import DataConfig, TrainConfig
from detseg.options.text import flat_options, to_flags, to_toml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bolt,nut", ["bolt", "nut"]),
        (" bolt , nut,, ", ["bolt", "nut"]),
        ('"bolt, M6",nut', ["bolt, M6", "nut"]),
        ('nut, "bolt, M6"', ["nut", "bolt, M6"]),
        ('5" pipe,3" pipe', ['5" pipe', '3" pipe']),
        ('"the ""big"" one",nut', ['the "big" one', "nut"]),
        ('"open,nut', ['"open', "nut"]),
        ('["bolt, M6"]', ["bolt, M6"]),
        ("[1]", ["[1]"]),
        ("", []),
        (["a,b", " "], ["a,b"]),
    ],
)
def test_names(text: Any, expected: list[str]) -> None:
    assert class_names(text) == expected
    assert class_names(None) is None
    if isinstance(text, str) and not text.startswith("["):
        assert class_names(",".join(map(quoted, expected))) == expected, "written and read again"


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("bolt, M6", ["bolt, M6", "nut"], ["bolt, M6"]),
        ("nut,bolt,M6", ["bolt, M6", "nut"], ["nut", "bolt, M6"]),
        ("a,b,c", ["a,b", "c", "a", "b,c"], None),
        ("bolt", ["bolt, M6"], None),
        ("a,b,c,d,e,f" * 200, ["a"], None),
    ],
)
def test_names_without_quotes_are_divided_if_there_is_one_way(text: str, known: list[str], expected: Any) -> None:
    assert names_with_commas(text, known) == expected


KNOWN = ["object", "bolt, M6", "a=b", "a", "nut", " pin", "nail ", "nail"]


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ("object=bolt", {"object": "bolt"}),
        (" object = bolt , nut=bolt", {"object": "bolt", "nut": "bolt"}),
        ("bolt, M6=bolt,nut=x", {"bolt, M6": "bolt", "nut": "x"}),
        ('"bolt, M6"="x, y",nut=z', {"bolt, M6": "x, y", "nut": "z"}),
        ('{"bolt, M6": "x=y"}', {"bolt, M6": "x=y"}),
        ({"object": "x", "a=b": "y"}, {"object": "x", "a=b": "y"}),
        (["object=x", '{"nut": "y"}', "a=z"], {"object": "x", "nut": "y", "a": "z"}),
        ("nut=x=y", {"nut": "x=y"}),
        ({}, {}),
        ("pin=nail", {" pin": "nail"}),
        ({"nail ": "nail"}, {"nail ": "nail"}),
        ('"nail "=nail', {"nail ": "nail"}),
        ("nail=x", {"nail": "x"}),
        ("object=nut,nut=object", {"object": "nut", "nut": "object"}),
    ],
)
def test_new_names(rename: Any, expected: dict[str, str]) -> None:
    assert new_names(rename, KNOWN, "data") == expected


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ("objct=x", "data has no class 'objct'; it has object, .*; did you mean object"),
        ("object", "'object' is not OLD=NEW"),
        ("object=x,y", "'y' is not OLD=NEW; a name with a comma stands in double quotes, or write --rename '{\"OLD"),
        ("a=b=c", """may be 'a' or 'a=b'; write --rename '{"a": "b=c"}' or --rename '{"a=b": "c"}'"""),
        ("object=x,object=y", "gives 'object' two names, 'x' and 'y'"),
        ('{"nut": "x", "nut": "y"}', "gives 'nut' two names"),
        ("object=", "a name is missing"),
        ("=x", "a name is missing"),
        ("", "a name is missing"),
        (["", "object="], "a name is missing"),
        ('{"nut": 1}', "the new name of 'nut' is not a text"),
        ('{"nut": ', "not a JSON object"),
    ],
)
def test_wrong_new_names(rename: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        new_names(rename, KNOWN, "data")


def test_selected_new_names_as_names_of_the_data() -> None:
    mapping = {"object": "bolt", "M6": "bolt", "nut": "object"}
    assert old_names(["bolt", "washer"], mapping) == ["object", "M6", "washer"]
    assert old_names(["bolt"], mapping, {"bolt"}) == ["object", "M6", "bolt"]
    assert old_names(["object"], mapping, {"object"}) == ["nut"]


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("class 1", "b"), ("bolt, M6", "b"), ("a=b", "c"), ('5" x', "y")])
def test_the_option_in_a_message_can_be_typed(old: str, new: str) -> None:
    command = rename_option(old, new)
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    flag, text = words.stdout.splitlines()
    assert flag == "--rename"
    assert new_names(text, [old], "data") == {old: new}


def test_the_flag_may_be_repeated_and_the_file_may_have_a_table(tmp_path: Any) -> None:
    command = COMMANDS["inspect"]
    repeated, _ = read_options(command, ["data", "--rename", "a=b", "--rename=c=d,e=f", "--rename", '{"g": "h"}'])
    assert repeated["rename"] == ["a=b", "c=d,e=f", '{"g": "h"}']
    assert len(rename_pairs(repeated["rename"])) == 4
    last, _ = read_options(command, ["data", "--classes", "a", "--classes", "b"])
    assert last["classes"] == "b", "control: of other options the last one counts"
    for text in (
        'rename = {"bolt, M6" = "bolt"}',
        '[rename]\n"bolt, M6" = "bolt"',
        '[data.rename]\n"bolt, M6" = "bolt"',
    ):
        file = tmp_path / "options.toml"
        file.write_text(text)
        options, _ = read_options(command, ["data", "--config", str(file)])
        assert options["rename"] == {"bolt, M6": "bolt"}
    file.write_text("rename = {a = 1}")
    with pytest.raises(DataError, match=r"rename = .*it must be OLD=NEW, a list of such texts, or a table of texts"):
        read_options(command, ["data", "--config", str(file)])


@pytest.mark.parametrize("rename", [{"bolt, M6": "a=b"}, ["a=b", "c=d"], "a=b"])
def test_the_options_of_a_run_are_written_and_read_again(rename: Any) -> None:
    import tomllib

    config = TrainConfig(data="x", rename=rename, class_attribute="type")
    again = TrainConfig(**flat_options(tomllib.loads(to_toml(config))))
    assert again == config
    words = to_flags(DataConfig(data="x", rename=rename), exclude=("data",))
    options, _ = read_options(COMMANDS["inspect"], words)
    assert DataConfig(**options) == DataConfig(rename=rename)
