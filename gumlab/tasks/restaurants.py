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
from functools import cache

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._grammar import article, choose, join_and, sentence, split_of, words

SIZES = {"train": 8_000, "validation": 400, "test": 400}
REFERENCES = 5  # renderings per example of validation and test
SEED = 17

WORDS = words("restaurants")
VALUES, WORDINGS = WORDS["values"], WORDS["wordings"]
HELD_OUT = ("food", "area", "priceRange")


@cache
def forms(attribute: str, value: str) -> dict[str, tuple[str, ...]]:
    """All wordings of one attribute, by place in the sentence: pre, loc, with, verb, clause."""
    templates = WORDINGS[attribute].get(value) or WORDINGS[attribute]["other"]
    found = {p: tuple(t.format(value=value) for t in ts) for p, ts in templates.items()}
    if "loc" in found:
        found["verb"] = tuple(f"{v} {spot}" for v in ("is", "is located") for spot in found["loc"])
    return found


def parse(prompt: str) -> dict[str, str]:
    """The attributes of a prompt.

    >>> parse("name[Blue Door], food[Thai], near[Old Mill] ->")["near"]
    'Old Mill'
    """
    return dict(re.findall(r"([A-Za-z][A-Za-z ]*)\[([^\]]*)\]", prompt))


def combination(prompt: str) -> tuple[str, ...]:
    """The held-out triple (food, area, priceRange) of a prompt; '' where it has none."""
    attributes = parse(prompt)
    return tuple(attributes.get(a, "") for a in HELD_OUT)


def _meaning(rng: random.Random) -> str:
    kept = {"name"}
    while len(kept) < 3:
        odds = {"eatType": 0.8, "food": 0.85, "area": 0.7, "near": 0.55}
        kept = {a for a in VALUES if a == "name" or rng.random() < odds.get(a, 0.6)}
    shown = (f"{a}[{rng.choice(v)}]" for a, v in VALUES.items() if a in kept)
    return ", ".join(shown) + " ->"


def _assign(attributes: dict[str, str], rng: random.Random) -> dict[str, list[str]]:
    """Put every attribute into one place; the second sentence ("late") takes what is left over."""
    room = {"pre": rng.choice((1, 2, 2)), "loc": 2, "with": rng.choice((0, 1, 1, 2)),
            "verb": rng.choice((0, 1, 1, 2))}  # fmt: skip
    weight = {"pre": 4, "loc": 6, "with": 2, "verb": 2, "late": 2}
    order = [a for a in attributes if a not in ("name", "eatType")]
    room["late"] = min(3, len(order) - 1)  # something must be left for the first sentence
    places: dict[str, list[str]] = {place: [] for place in room}
    for attribute in rng.sample(order, len(order)):
        known = {*forms(attribute, attributes[attribute]), "late"}
        able = [p for p in room if p in known and len(places[p]) < room[p]] or ["verb"]
        places[rng.choices(able, [weight[p] for p in able])[0]].append(attribute)
    # English puts opinion before kind: a cheap, child friendly Thai pub.
    rank = ("customer rating", "priceRange", "familyFriendly", "food")
    places["pre"].sort(key=rank.index)
    return places


def render(prompt: str, rng: random.Random) -> str:
    """One wording of the prompt's meaning: every attribute realised once, in 1 or 2 sentences."""
    values = parse(prompt)
    places = _assign(values, rng)

    def said(place: str) -> list[str]:
        return [choose(rng, forms(a, values[a])[place]) for a in places[place]]

    name, noun = values["name"], values.get("eatType") or choose(rng, ("place", "venue", "spot"))
    pre = said("pre")
    # Commas stand between opinions, but not before the food.
    split = len(pre) - ("food" in places["pre"])
    phrase = article(" ".join(filter(None, [", ".join(pre[:split]), *pre[split:], noun])))
    loc = " ".join(said("loc"))
    having = f" with {join_and(said('with'))}" if places["with"] else ""
    verbs = join_and(said("verb")) if places["verb"] else ""
    which = f" {choose(rng, ('that', 'which'))} {verbs}" if verbs else ""
    at = f" {loc}" if loc else ""
    plans = [
        f"{name} is {phrase}{at}{having}{which}",
        verbs and f"{name}, {phrase}{at}{having}, {verbs}",
        loc and f"located {loc}, {name} is {phrase}{having}{which}",
        f"there is {phrase} called {name}{at}{having}{which}",
        loc and f"{loc} you will find {name}, {phrase}{having}{which}",
    ]
    # A missing eatType invites the plain form, without any noun.
    if verbs and "eatType" not in values and not pre and not having:
        plans.insert(0, f"located {loc}, {name} {verbs}" if loc else f"{name} {verbs}")
    plan = choose(rng, list(filter(None, plans)))
    return " ".join(map(sentence, filter(None, [plan, _second(values, places["late"], noun, rng)])))


def _second(values: dict[str, str], late: list[str], noun: str, rng: random.Random) -> str:
    if not late:
        return ""
    wordings = [forms(a, values[a]) for a in late]
    if len(late) < 3 and all("clause" in w for w in wordings) and rng.random() < 0.4:
        return join_and([choose(rng, w["clause"]) for w in wordings])
    subject = choose(rng, ("it", f"the {noun}", f"this {noun}"))
    return f"{subject} {join_and([choose(rng, w['verb']) for w in wordings])}"


def _examples(split: str) -> list[Example]:
    rng = random.Random(f"{SEED} {split}")  # a string seeds by SHA-512: alike on every machine
    found: list[Example] = []
    seen: set[str] = set()
    while len(found) < SIZES[split]:
        prompt = _meaning(rng)
        if prompt in seen or split_of(combination(prompt)) != split:
            continue
        seen.add(prompt)
        if split == "train":  # one rendering an example; some meanings come twice
            found += [Example(prompt, render(prompt, rng)) for _ in range(rng.choice((1, 1, 1, 2)))]
        else:
            drawn = dict.fromkeys(render(prompt, rng) for _ in range(4 * REFERENCES))
            references = tuple(drawn)[:REFERENCES]
            found.append(Example(prompt, references[0], references))
    return found[: SIZES[split]]


def load() -> Task:
    """The task: 8,000 training, 400 validation and 400 test examples, the same on every machine."""
    train, validation, test = map(_examples, SPLITS)
    return Task("restaurants", "bleu", train, validation, test)
