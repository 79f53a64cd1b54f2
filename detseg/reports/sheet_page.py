"""Write a page of drawn images as one HTML file that needs no other file, with filters by class and split."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np

from detseg.annotations.table import AnnotationTable
from detseg.reports.data_sheet import Card
from detseg.reports.figure import fitted
from detseg.reports.shown_images import ShownProblem
from detseg.runtime.files import write_text
from detseg.short_text import counted, middle_cut

LONGEST = 360
"""Longest side of an image on the page in pixels; smaller ones are not enlarged."""
LONGEST_TEXT = 300
"""Characters of a text in the table of problems."""
KINDS = ("smallest", "largest")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
html {{ font: 16px/1.4 system-ui, sans-serif; padding: .5rem; color: #222; background: #fff; }}
h1 {{ font-size: 1.3rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
form {{ position: sticky; top: 0; background: #fff; padding: .5rem 0; display: flex; flex-wrap: wrap; }}
form > * {{ margin-right: 1rem; }}
select {{ font: inherit; max-width: 16rem; padding: .3rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
figure[hidden] {{ display: none; }}
img {{ max-width: 100%; height: auto; display: block; }}
figcaption {{ font-size: .9rem; overflow-wrap: anywhere; }}
figure.error, figure.warning {{ border-top: 4px solid #b00020; padding-top: .3rem; }}
figure.warning {{ border-color: #b26a00; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; overflow-wrap: anywhere; }}
th, td:first-child, td:nth-child(2) {{ white-space: nowrap; }}
td:nth-child(3) {{ text-align: right; }}
td button {{ font: inherit; text-align: left; border: 0; background: none; padding: 0; color: #0645ad; }}
</style>
</head>
<h1>{title}</h1>
<p>{about}</p>
{problems}
<form>
<label>Class <select id="class"><option value="">all</option>{classes}</select></label>
<label>Split <select id="split"><option value="*">all</option>{splits}</select></label>
<label>Show <select id="kind"><option value="*">all</option>{kinds}</select></label>
<output id="count">{shown}</output>
</form>
<main>
{cards}
</main>
<script>
const choices = ["class", "split", "kind"].map((id) => document.getElementById(id));
const cards = [...document.querySelectorAll("figure")];
function filter() {{
  const [label, split, kind] = choices.map((choice) => choice.value);
  for (const card of cards) {{
    card.hidden = (label !== "" && !card.dataset.labels.split(" ").includes(label))
      || (split !== "*" && card.dataset.split !== split) || (kind !== "*" && card.dataset.kind !== kind);
  }}
  document.getElementById("count").textContent = cards.filter((card) => !card.hidden).length + " of " + cards.length;
}}
for (const choice of choices) choice.addEventListener("change", filter);
for (const button of document.querySelectorAll("td button")) button.addEventListener("click", () => {{
  [choices[0].value, choices[1].value, choices[2].value] = ["", "*", button.dataset.kind];
  filter();
  document.querySelector("form").scrollIntoView();
}});
filter();
</script>
</html>
"""


def write_page(
    path: str | os.PathLike[str],
    table: AnnotationTable,
    cards: Sequence[Card],
    problems: Sequence[ShownProblem] = (),
) -> None:
    """Write the page of a data set, atomically; the same cards give the same bytes.

    Args:
        path: of the HTML file.
        table: of the data set, for the class names and the number of images of each.
        cards: what the page shows, in this order.
        problems: all of them, the worst first; a table has one row for each kind.
    """
    labels = sorted({label for card in cards for label in card.labels})
    names = {label: table.class_map.name_of(label) for label in labels}
    objects = counted(int(table.instances_per_image().sum()), "object") if not table.has_class_index else ""
    parts = [counted(len(table), "image"), objects, counted(len(table.class_map), "class", "classes")]
    text = _PAGE.format(
        title=escape(f"Data set {table.source}".strip()),
        about=escape(f"{', '.join(filter(None, parts))}. {counted(len(cards), 'drawing')} on this page."),
        classes="".join(_option(str(label), names[label]) for label in labels),
        splits="".join(
            _option(split, split or "none") for split in sorted({card.split for card in cards}, key=_split_order)
        ),
        kinds="".join(_option(kind, _kind_name(kind)) for kind in _kinds(cards)),
        problems=_problem_table(problems, _kinds(cards)),
        shown=len(cards),
        cards="\n".join(_card(card, names) for card in cards),
    )
    write_text(path, text)


def _card(card: Card, names: dict[int, str]) -> str:
    classes = ", ".join(names[label] for label in card.labels) or "no objects"
    name = "" if card.problem else card.name  # the text of a problem begins with it
    lines = [name, card.detail or classes, f"split: {card.split}" if card.split else ""]
    if card.title:
        lines.insert(0, f"{card.title} object" if card.title in KINDS else card.title)
    if card.problem:
        lines.insert(0, f"{card.severity}: {card.problem}")
    image = card.image if max(card.image.shape[:2]) <= LONGEST else fitted(card.image, LONGEST)
    height, width = image.shape[:2]
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert ok, "OpenCV always encodes uint8 RGB"
    source = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    return (
        f'<figure class="{escape(card.severity)}" data-labels="{" ".join(map(str, card.labels))}" '
        f'data-split="{escape(card.split)}" data-kind="{escape(_kind(card))}">'
        f'<img loading="lazy" width="{width}" height="{height}" alt="{escape(card.caption)}" src="{source}">'
        f"<figcaption>{'<br>'.join(escape(line) for line in lines if line)}</figcaption></figure>"
    )


def _problem_table(problems: Sequence[ShownProblem], shown: Sequence[str]) -> str:
    """Severity, kind, number and first text of the problems of each kind; kinds with drawings select these."""
    counts = Counter(problem.kind for problem in problems)
    first = {problem.kind: problem for problem in reversed(problems)}
    if not counts:
        return "<p>No problems found.</p>"
    rows = []
    for kind, number in counts.items():
        name = escape(kind)
        button = f'<button type="button" data-kind="{name}">{name}</button>' if kind in shown else name
        text = middle_cut(first[kind].text, LONGEST_TEXT)
        rows.append(f"<tr><td>{first[kind].severity}<td>{button}<td>{number}<td>{escape(text)}")
    head = "<tr><th>Severity<th>Problem<th>Number<th>First"
    return f"<table>{head}{''.join(rows)}</table>"


def _kind(card: Card) -> str:
    return card.problem or (card.title if card.title in KINDS else "")


def _kinds(cards: Sequence[Card]) -> list[str]:
    """The kinds of the cards: images, objects by their size, then problems."""
    present = dict.fromkeys(_kind(card) for card in cards)
    return [kind for kind in ("", *KINDS) if kind in present] + [k for k in present if k not in ("", *KINDS)]


def _kind_name(kind: str) -> str:
    return f"{kind} objects" if kind in KINDS else kind or "images"


def _option(value: str, text: str) -> str:
    return f'<option value="{escape(value)}">{escape(text)}</option>'


def _split_order(split: str) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(split) if split in order else len(order), split)
