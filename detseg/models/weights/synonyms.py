"""Which class names mean the same, as far as COCO's 80 are concerned: a short, hand-made list.

A name is listed only if nearly every data set means the same by it. Left out for that reason: bag, bat, crane, cyclist,
desk, face, glass, male, monitor, rider, scooter, screen, stove, table, van. What a data set means by such a name, or by
``worker``, its owner can say.
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
"""Another word, or another spelling, for the same things. Keys and values as :func:`plain_name` gives them."""
KINDS = {kind: name for name, kinds in _KINDS.items() for kind in kinds.split()}
"""A kind of what COCO has one name for. It holds one way only: a man is a person, but a person is not a man."""

AMBIGUOUS = {
    "apple": "the fruit",
    "keyboard": "that of a computer",
    "kite": "the toy",
    "mouse": "that of a computer",
    "orange": "the fruit",
    "remote": "a remote control",
    "tie": "worn around the neck",
    "train": "the one on rails",
}
"""COCO's names that other data sets use for other things, and what COCO means. Only the very name matches them."""

NO_PLURAL = ("glasses",)
"""What looks like the plural of another thing."""

_SEPARATORS = re.compile(r"(?<=\D)[\s_-]+|[\s_-]+(?!\d)")  # not in 1_0, which is not 10, nor in -1


def plain_name(name: str) -> str:
    """``name`` without case, underscores, hyphens and spaces: ``Potted_Plant`` and ``potted plant`` are one."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold())


def is_ambiguous(name: str) -> bool:
    """Whether ``name`` (also its plural) is one that different data sets use for different things."""
    return any(word in AMBIGUOUS for word in _singulars(plain_name(name)))


def meanings(name: str) -> set[str]:
    """What ``name`` may be called: itself, its singular, and the listed name that means the same."""
    return {SAME.get(word, word) for word in _singulars(plain_name(name))}


def broader(name: str) -> set[str]:
    """The listed names of which ``name`` is a kind."""
    return {KINDS[word] for word in _singulars(plain_name(name)) if word in KINDS}


def _singulars(word: str) -> list[str]:
    """``word``, and what it may be the plural of: a guess, that only counts when it meets another name."""
    words = [word]
    if word in NO_PLURAL or word.endswith("ss"):
        return words
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            words.append(word.removesuffix(ending) + singular)
    return words
