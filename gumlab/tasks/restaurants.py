"""Restaurants: a meaning representation to one or two sentences, scored by BLEU.

The notation is that of the E2E NLG challenge; every name, landmark and sentence is our own.

Grammar (a choice at every |, earlier options more often):

    prompt  = name[..], eatType[..], food[..], priceRange[..], customer rating[..], area[..],
              familyFriendly[..], near[..] ->          (3 to 8 attributes, in this order)
    target  = first [second]
    first   = NAME is NP LOC WITH WHICH | Located LOC, NAME is NP WITH WHICH
            | NAME, NP LOC WITH, VERBS | There is NP called NAME LOC WITH WHICH
            | LOC you will find NAME, NP WITH WHICH | NAME VERBS LOC
    second  = (It | The NOUN | This NOUN) VERBS | CLAUSES

Each attribute is put into one place: before the noun (cheap), LOC (near Old Mill), WITH (with low
prices), VERBS (serves Italian food) or CLAUSES (children are welcome), with synonyms in each. The
words are in restaurants.json; "other" there stands for the values without an entry of their own.

Held out: the triple (food, area, priceRange), absence counted as a value. A stable hash
gives each triple one split, so no triple of the test or validation split occurs in train.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate

from gumlab.tasks import Example, Task
from gumlab.tasks._grammar import (
    article,
    choose,
    choose_by_sums,
    held_out_split,
    join_and,
    sentence,
    words,
)

SIZES = {"train": 8_000, "validation": 400, "test": 400}
REFERENCES = 5  # renderings per example of validation and test
SEED = 17

WORDS = words("restaurants")
VALUES = WORDS["values"]  # of each attribute, in the order of a prompt
WORDINGS = WORDS["wordings"]
HELD_OUT = ("food", "area", "priceRange")
ODDS = {  # that a prompt has the attribute; all have a name
    "eatType": 0.8,
    "food": 0.85,
    "priceRange": 0.6,
    "customer rating": 0.6,
    "area": 0.7,
    "familyFriendly": 0.6,
    "near": 0.55,
}
# English puts opinion before kind: a cheap, child friendly Thai pub.
ORDER_BEFORE_NOUN = ("customer rating", "priceRange", "familyFriendly", "food")
# How often an attribute goes to a place that can take it; "late" is the second sentence.
PLACE_WEIGHTS = {"pre": 4, "loc": 6, "with": 2, "verb": 2, "late": 2}


def load() -> Task:
    """The task `restaurants`: the same 8,000, 400 and 400 examples on every machine.

    Returns
    -------
    Task
        With the metric "bleu"; validation and test have up to REFERENCES references an example.
    """
    return Task.generated("restaurants", "bleu", _examples)


@cache
def _examples(split: str) -> tuple[Example, ...]:
    """The examples of one split, drawn until there are enough; once in a process."""
    rng = random.Random(f"{SEED} {split}")  # a string seeds by SHA-512: alike on every machine
    examples: list[Example] = []
    prompts: set[str] = set()
    while len(examples) < SIZES[split]:
        prompt = _meaning(rng)
        values = parse(prompt)
        if prompt in prompts or held_out_split(combination(values)) != split:
            continue
        prompts.add(prompt)
        if split == "train":  # one rendering an example; some meanings come twice
            for _ in range(rng.choice((1, 1, 1, 2))):
                examples.append(Example(prompt, render(values, rng)))
        else:
            renderings = [render(values, rng) for _ in range(4 * REFERENCES)]
            references = tuple(dict.fromkeys(renderings))[:REFERENCES]
            examples.append(Example(prompt, references[0], references))
    return tuple(examples[: SIZES[split]])


def _meaning(rng: random.Random) -> str:
    """A random prompt of three attributes or more."""
    attributes = ["name"]
    while len(attributes) < 3:
        attributes = [name for name in VALUES if name == "name" or rng.random() < ODDS[name]]
    shown = [f"{name}[{rng.choice(VALUES[name])}]" for name in attributes]
    return ", ".join(shown) + " ->"


def parse(prompt: str) -> dict[str, str]:
    """The attributes of a prompt.

    >>> parse("name[Blue Door], food[Thai], near[Old Mill] ->")["near"]
    'Old Mill'
    """
    return dict(re.findall(r"([A-Za-z][A-Za-z ]*)\[([^\]]*)\]", prompt))


def combination(values: dict[str, str]) -> tuple[str, ...]:
    """The held-out triple (food, area, priceRange) of a meaning; '' where it has none."""
    return tuple(values.get(name, "") for name in HELD_OUT)


@cache
def forms(attribute: str, value: str) -> dict[str, tuple[str, ...]]:
    """All wordings of one attribute, by place in the sentence: pre, loc, with, verb, clause."""
    by_value = WORDINGS[attribute]
    templates_by_place = by_value.get(value) or by_value["other"]
    wordings = {
        place: tuple(template.format(value=value) for template in templates)
        for place, templates in templates_by_place.items()
    }
    if "loc" in wordings:
        plain = [f"is {spot}" for spot in wordings["loc"]]
        located = [f"is located {spot}" for spot in wordings["loc"]]
        wordings["verb"] = (*plain, *located)
    return wordings


def _assign(attributes: dict[str, str], rng: random.Random) -> dict[str, list[str]]:
    """Put every attribute into one place; the second sentence ("late") takes what is left over."""
    to_place = [name for name in attributes if name not in ("name", "eatType")]
    room = {
        "pre": rng.choice((1, 2, 2)),
        "loc": 2,
        "with": rng.choice((0, 1, 1, 2)),
        "verb": rng.choice((0, 1, 1, 2)),
        "late": min(3, len(to_place) - 1),  # something must be left for the first sentence
    }
    places: dict[str, list[str]] = {place: [] for place in room}
    for name in rng.sample(to_place, len(to_place)):
        wordings = forms(name, attributes[name])
        open_places = tuple(
            place
            for place in room
            if (place in wordings or place == "late") and len(places[place]) < room[place]
        )
        if not open_places:
            open_places = ("verb",)
        place = choose_by_sums(rng, open_places, _sums_of_places(open_places))
        places[place].append(name)
    places["pre"].sort(key=ORDER_BEFORE_NOUN.index)
    return places


@cache
def _sums_of_places(places: tuple[str, ...]) -> tuple[int, ...]:
    """The running sums of the places' weights."""
    return tuple(accumulate(PLACE_WEIGHTS[place] for place in places))


def render(values: dict[str, str], rng: random.Random) -> str:
    """One wording of a meaning: every attribute realised once, in 1 or 2 sentences."""
    places = _assign(values, rng)

    def worded(place: str) -> list[str]:
        """A wording of each attribute in that place."""
        return [choose(rng, forms(name, values[name])[place]) for name in places[place]]

    name = values["name"]
    noun = values.get("eatType") or choose(rng, ("place", "venue", "spot"))
    adjectives = worded("pre")
    phrase = _noun_phrase(adjectives, noun, has_food="food" in places["pre"])
    location = " ".join(worded("loc"))
    at = f" {location}" if location else ""
    having = f" with {join_and(worded('with'))}" if places["with"] else ""
    verbs = join_and(worded("verb")) if places["verb"] else ""
    which = f" {choose(rng, ('that', 'which'))} {verbs}" if verbs else ""

    plans = [f"{name} is {phrase}{at}{having}{which}"]
    if verbs:
        plans.append(f"{name}, {phrase}{at}{having}, {verbs}")
    if location:
        plans.append(f"located {location}, {name} is {phrase}{having}{which}")
    plans.append(f"there is {phrase} called {name}{at}{having}{which}")
    if location:
        plans.append(f"{location} you will find {name}, {phrase}{having}{which}")
    # A missing eatType invites the plain form, without any noun.
    if verbs and "eatType" not in values and not adjectives and not having:
        plain = f"located {location}, {name} {verbs}" if location else f"{name} {verbs}"
        plans.insert(0, plain)

    first = sentence(choose(rng, plans))
    if not places["late"]:
        return first
    return f"{first} {sentence(_second(values, places['late'], noun, rng))}"


def _noun_phrase(adjectives: Sequence[str], noun: str, has_food: bool) -> str:
    """The noun with what stands before it: commas between opinions, but not before the food."""
    opinions = adjectives[:-1] if has_food else adjectives
    kind = adjectives[-1] if has_food else ""
    parts = (", ".join(opinions), kind, noun)
    return article(" ".join(part for part in parts if part))


def _second(values: dict[str, str], names: list[str], noun: str, rng: random.Random) -> str:
    """The second sentence, of the attributes that the first left over."""
    wordings = [forms(name, values[name]) for name in names]
    have_clauses = all("clause" in by_place for by_place in wordings)
    if len(names) < 3 and have_clauses and rng.random() < 0.4:
        return join_and([choose(rng, by_place["clause"]) for by_place in wordings])
    subject = choose(rng, ("it", f"the {noun}", f"this {noun}"))
    return f"{subject} {join_and([choose(rng, by_place['verb']) for by_place in wordings])}"
