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
prices), VERBS (serves Italian food) or CLAUSES (children are welcome), with synonyms in each.

Held out: the triple (food, area, priceRange), absence counted as a value. A stable hash
gives each triple one split, so no triple of the test or validation split occurs in train.
"""

from __future__ import annotations

import random
import re
from functools import cache

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._grammar import article, choose, join_and, sentence, split_of

SIZES = {"train": 8_000, "validation": 400, "test": 400}
REFERENCES = 5  # renderings per example of validation and test
SEED = 17

NAMES = (
    "Blue Door", "Copper Kettle", "Red Lantern", "Silver Spoon", "Green Gate", "Black Swan Inn",
    "White Oak", "Golden Anchor", "Little Fox", "Happy Goose", "Lucky Bell", "Quiet Corner",
    "Stone Oven", "Wild Olive", "Salt and Smoke", "Paper Moon", "Two Brothers", "Three Pears",
    "Seven Steps", "Iron Pan", "Brass Monkey", "Cherry Tree", "Lemon House", "Pepper Mill",
    "Sunny Side", "Night Owl", "Morning Star", "Rusty Fork", "Velvet Chair", "Glass Table",
    "Hungry Bear", "Old Compass", "Orange Cat", "Amber Room", "Ivy Wall", "Empty Plate",
    "Winter Garden", "Open Book", "Captain's Table", "Grandma's Kitchen",
)  # fmt: skip
LANDMARKS = (
    "Old Mill", "Stone Bridge", "Clock Tower", "Rose Park", "Town Hall", "North Station",
    "Market Hall", "Ferry Pier", "King's Theatre", "City Library", "Art Museum", "Swan Lake Hotel",
    "East Gate", "Grand Cinema", "Saint Anna Church", "Harbour Light", "Long Stairs",
    "Football Ground", "Music School", "Fish Fountain",
)  # fmt: skip
VALUES = {
    "name": NAMES,
    "eatType": ("restaurant", "pub", "coffee shop"),
    "food": ("Italian", "French", "Indian", "Chinese", "Japanese", "English", "Fast food",
             "Thai", "Greek", "Mexican", "Turkish", "Seafood"),
    "priceRange": ("cheap", "moderate", "high", "less than £20", "£20-25", "more than £30"),
    "customer rating": ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5"),
    "area": ("riverside", "city centre", "old town", "harbour", "university quarter"),
    "familyFriendly": ("yes", "no"),
    "near": LANDMARKS,
}  # fmt: skip
HELD_OUT = ("food", "area", "priceRange")

PRICE_WORDS = {  # value: adjectives, word before "prices"
    "cheap": (("cheap", "low-priced", "inexpensive"), "low"),
    "moderate": (("moderately priced", "mid-priced"), "moderate"),
    "high": (("expensive", "high-priced"), "high"),
}
RATING_WORDS = {  # value: adjectives, how customers rate
    "low": (("low-rated", "poorly rated"), "low"),
    "average": (("average-rated",), "average"),
    "high": (("highly rated", "top-rated"), "high"),
}
PLACES = {
    "riverside": ("by the riverside", "in the riverside area", "by the river"),
    "city centre": ("in the city centre", "in the centre of the city"),
    "old town": ("in the old town", "in the old part of town"),
    "harbour": ("at the harbour", "in the harbour area", "by the harbour"),
    "university quarter": ("in the university quarter", "in the university area"),
}
FAMILY = {
    "yes": {
        "pre": ("family friendly", "child friendly", "kid friendly"),
        "verb": ("is family friendly", "is child friendly", "welcomes families",
                 "welcomes children"),
        "clause": ("children are welcome", "families are welcome", "kids are welcome"),
    },
    "no": {
        "pre": ("adults-only", "non family friendly"),
        "verb": ("is not family friendly", "is not child friendly", "does not welcome children",
                 "is for adults only"),
        "clause": ("children are not welcome", "children are not allowed"),
    },
}  # fmt: skip


def _price(value: str) -> dict[str, tuple[str, ...]]:
    if value in PRICE_WORDS:
        adjectives, word = PRICE_WORDS[value]
        return {
            "pre": adjectives,
            "with": (f"{word} prices",),
            "verb": (f"is {adjectives[0]}", f"has {word} prices", f"is {adjectives[1]}"),
            "clause": (f"prices are {word}", f"the price range is {word}"),
        }
    return {
        "with": (f"prices of {value}", f"a price range of {value}"),
        "verb": (f"has prices of {value}", f"charges {value}", f"has a price range of {value}"),
        "clause": (f"prices are {value}", f"a meal costs {value}"),
    }


def _rating(value: str) -> dict[str, tuple[str, ...]]:
    adjectives, word = RATING_WORDS.get(value, ((), value))
    one = article(word)
    wordings = {
        "with": (f"{one} customer rating", f"{one} rating"),
        "verb": (f"has {one} customer rating", f"is rated {word} by customers",
                 f"has {one} rating"),
        "clause": (f"customers rate it {word}", f"its customer rating is {word}"),
    }  # fmt: skip
    return wordings | ({"pre": adjectives} if adjectives else {})


@cache
def forms(attribute: str, value: str) -> dict[str, tuple[str, ...]]:
    """All wordings of one attribute, by place in the sentence: pre, loc, with, verb, clause."""
    if attribute == "food":
        if value in ("Fast food", "Seafood"):  # these name the food itself
            word = value.lower()
            verbs = f"serves {word}", f"offers {word}", f"sells {word}"
            return {"pre": (word,), "verb": verbs, "clause": (f"the menu is {word}",)}
        verbs = f"serves {value} food", f"offers {value} dishes", f"has {value} cuisine"
        return {"pre": (value,), "verb": verbs, "clause": (f"the food is {value}",)}
    if attribute == "priceRange":
        return _price(value)
    if attribute == "customer rating":
        return _rating(value)
    if attribute == "familyFriendly":
        return FAMILY[value]
    spots = PLACES[value] if attribute == "area" else tuple(
        f"{word} {value}" for word in ("near", "close to", "not far from"))  # fmt: skip
    return {"loc": spots, "verb": tuple(f"{v} {s}" for v in ("is", "is located") for s in spots)}


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

    def words(place: str, attribute: str) -> str:
        return choose(rng, forms(attribute, values[attribute])[place])

    name, noun = values["name"], values.get("eatType") or choose(rng, ("place", "venue", "spot"))
    pre = [words("pre", a) for a in places["pre"]]
    # Commas stand between opinions, but not before the food.
    split = len(pre) - ("food" in places["pre"])
    phrase = article(" ".join(filter(None, [", ".join(pre[:split]), *pre[split:], noun])))
    loc = " ".join(words("loc", a) for a in places["loc"])
    having = join_and([words("with", a) for a in places["with"]] or [""])
    having = having and f" with {having}"
    verbs = join_and([words("verb", a) for a in places["verb"]] or [""])
    which = f" {choose(rng, ('that', 'which'))} {verbs}" if verbs else ""
    at = f" {loc}" if loc else ""
    plans = [f"{name} is {phrase}{at}{having}{which}"]
    if verbs:
        plans.append(f"{name}, {phrase}{at}{having}, {verbs}")
    if loc:
        plans.append(f"located {loc}, {name} is {phrase}{having}{which}")
    plans.append(f"there is {phrase} called {name}{at}{having}{which}")
    if loc:
        plans.append(f"{loc} you will find {name}, {phrase}{having}{which}")
    # A missing eatType invites the plain form, without any noun.
    if verbs and "eatType" not in values and not pre and not having:
        plans.insert(0, f"located {loc}, {name} {verbs}" if loc else f"{name} {verbs}")
    sentences = choose(rng, plans), _second(values, places["late"], noun, rng)
    return " ".join(sentence(s) for s in sentences if s)


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
    return Task("restaurants", "bleu", **{split: _examples(split) for split in SPLITS})
