"""Synonyms of COCO's 80 class names: a short, manually written list.

A name is listed only if it has the same meaning in nearly every data set. Therefore not listed: bag, bat, crane,
cyclist, desk, face, glass, male, monitor, rider, scooter, screen, stove, table, van. For such names, or for ``worker``,
the user can specify the meaning (--class-transfer).
"""

from __future__ import annotations

import re
import unicodedata

_SAME = {
    "person": "people human humanbeing pedestrian",
    "bicycle": "bike pushbike",
    "car": "automobile motorcar",
    "motorcycle": "motorbike",
    "airplane": "aeroplane plane",
    "bus": "buss busses omnibus",
    "truck": "lorry",
    "trafficlight": "trafficsignal stoplight",
    "firehydrant": "hydrant",
    "cow": "cattle",
    "backpack": "rucksack",
    "handbag": "purse",
    "tie": "necktie",
    "skis": "ski",
    "tennisracket": "tennisracquet",
    "knife": "knives",
    "donut": "doughnut",
    "couch": "sofa settee",
    "pottedplant": "houseplant",
    "tv": "tvs television tvmonitor tvset televisionset",
    "laptop": "laptopcomputer",
    "mouse": "computermouse",
    "remote": "remotecontrol tvremote",
    "keyboard": "computerkeyboard",
    "cellphone": "mobilephone cellularphone smartphone phone",
    "microwave": "microwaveoven",
    "refrigerator": "fridge",
    "teddybear": "teddy stuffedbear",
    "hairdrier": "hairdryer blowdryer",
}
_KINDS = {
    "person": "man men woman women child children boy girl kid adult baby lady gentleman",
    "car": "sedan hatchback suv taxi cab jeep",
    "motorcycle": "moped",
    "airplane": "airliner",
    "bus": "minibus schoolbus",
    "train": "locomotive",
    "truck": "pickuptruck dumptruck firetruck",
    "boat": "ship sailboat speedboat motorboat yacht canoe kayak ferry",
    "bird": "sparrow pigeon seagull duck goose geese swan eagle owl parrot",
    "cat": "kitten",
    "dog": "puppy",
    "horse": "pony foal",
    "bear": "polarbear grizzlybear brownbear",
    "sportsball": "football soccerball basketball volleyball tennisball",
    "bottle": "beerbottle waterbottle winebottle",
    "cup": "mug teacup coffeecup",
    "chair": "armchair",
    "tv": "computermonitor",
}
SAME = {other: name for name, others in _SAME.items() for other in others.split()}
"""Synonym or other spelling -> COCO name. Keys and values are normalized by :func:`plain_name`."""
KINDS = {kind: name for name, kinds in _KINDS.items() for kind in kinds.split()}
"""Subclass -> COCO name. Not symmetric: a man is a person, but a person is not necessarily a man."""

AMBIGUOUS = {
    "apple": "the fruit",
    "keyboard": "a computer keyboard",
    "kite": "the toy",
    "mouse": "a computer mouse",
    "orange": "the fruit",
    "remote": "a remote control",
    "tie": "worn around the neck",
    "train": "the rail vehicle",
}
"""COCO names with other meanings in other data sets -> their meaning in COCO. Only the exact name matches them."""

NO_PLURAL = ("glasses",)
"""Names that look like the plural of a different class."""

_SEPARATORS = re.compile(r"(?<=\D)[\s_-]+|[\s_-]+(?!\d)")  # not inside 1_0, which is not 10, and not in -1


def plain_name(name: str) -> str:
    """Normalize ``name``: ignore case, underscores, hyphens and spaces (``Potted_Plant`` equals ``potted plant``)."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold())


def is_ambiguous(name: str) -> bool:
    """Return whether ``name`` (or its singular) has different meanings in different data sets."""
    return any(word in AMBIGUOUS for word in _singulars(plain_name(name)))


def meanings(name: str) -> set[str]:
    """Return ``name`` itself, its possible singulars, and listed synonyms, all normalized."""
    return {SAME.get(word, word) for word in _singulars(plain_name(name))}


def broader(name: str) -> set[str]:
    """Return the listed names of which ``name`` is a subclass."""
    return {KINDS[word] for word in _singulars(plain_name(name)) if word in KINDS}


def _singulars(word: str) -> list[str]:
    """Return ``word`` and its possible singulars; wrong ones do no harm, because they match no class name."""
    words = [word]
    if word in NO_PLURAL or word.endswith("ss"):
        return words
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            words.append(word.removesuffix(ending) + singular)
    return words
