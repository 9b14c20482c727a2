"""Chats: a short dialogue to a one- or two-sentence summary of how it ended, scored by ROUGE.

All names, scenes and sentences are our own. A dialogue has 3 to 7 turns. Grammar:

    prompt    = [small talk] exchange [closing] Summary:
    agreed    = A proposes, B turns part of it down and offers another day, time, place or
                activity (or changes it later), A accepts; one of them takes on a duty
    declined  = A proposes, B has a reason not to, perhaps after a yes; A may ask somebody else
    postponed = A cannot keep a date, a first new day is refused, a second is accepted
    handover  = A cannot do a task; B, or somebody B names, does it
    target    = the final plan: who, what, day, time, place or duty, reason

Proposals that were turned down, and small talk, stay out of the summary. The words are in
chats.json; a name in braces there is a field of `Scene`, or given where it is said.

Held out: the triple (activity or task, outcome, final day). Each triple belongs to one split by a
stable hash, so no triple of the test or validation split occurs in train.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._grammar import choose, split_of, words

SIZES = {"train": 8_000, "validation": 400, "test": 400}
REFERENCES = 3  # wordings per example of validation and test
SEED = 23

WORDS = words("chats")
NAMES, DAYS, TIMES = WORDS["names"], WORDS["days"], WORDS["times"]


@dataclass(frozen=True)
class Scene:
    """What happened: the final plan, and beside it what was turned down on the way."""

    outcome: str
    a: str
    b: str
    other: str  # a third person: whom A asks instead, or who does the task; else only small talk
    activity: str
    noun: str  # what the appointment is called
    day: str
    time: str
    place: str
    duty: str
    bringer: str  # who has the duty, or does the task
    reason: str
    changed: str  # what is turned down: day, time, place, activity or nothing
    old: str  # the value turned down
    old_time: str  # agreed: a time that is changed besides the day
    first_day: str  # postponed: the date that is given up

    @property
    def combination(self) -> tuple[str, ...]:
        """The held-out triple."""
        return self.activity, self.outcome, self.day

    @property
    def facts(self) -> tuple[str, ...]:
        """The words that every summary of this scene must contain."""
        own = {
            "agreed": (self.activity, self.time, self.place, self.duty.split(" ", 1)[-1]),
            "declined": (self.activity, self.reason, self.other if self.bringer else ""),
            "postponed": (self.noun, self.first_day, self.reason),
            "handover": (self.activity.split(" ", 1)[1], self.bringer, self.reason),
        }[self.outcome]
        return self.a, self.b, self.day, *own


def _say(s: Scene, rng: random.Random, kind: str, **more: str) -> str:
    """One of the outcome's wordings of something, filled with the scene and what else is given."""
    return choose(rng, WORDS["sayings"][s.outcome][kind]).format(**vars(s) | more)


def draw(rng: random.Random) -> Scene:
    """A random scene."""
    # The richest comes twice as often.
    outcome = rng.choice(("agreed", "agreed", "declined", "postponed", "handover"))
    topic = WORDS["topics"][rng.choice(list(WORDS["topics"]))]
    (activity, noun, duty), second = rng.sample(topic["activities"], 2)
    a, b, other = rng.sample(NAMES, 3)
    day, old_day, first_day = rng.sample(DAYS, 3)
    time, old_time = rng.sample(TIMES, 2)
    place, old_place = rng.sample(topic["places"], 2)
    olds = {"day": old_day, "time": old_time, "place": old_place, "activity": second[0], "": ""}
    changed = rng.choice(("day", "day", "time", "place", "activity", ""))
    extra = rng.choice(("place", "duty", "duty", ""))  # one of the two, to keep dialogues short
    bringer = rng.choice({"declined": (other, ""), "handover": (b, b, other)}.get(outcome, (a, b)))
    return Scene(
        outcome, a, b, other, rng.choice(topic["tasks"]) if outcome == "handover" else activity,
        noun, day, time, place if extra == "place" or changed == "place" else "",
        duty if extra == "duty" and changed != "place" else "", bringer,
        rng.choice(WORDS["reasons"]), changed, olds[changed],
        old_time if changed == "day" and rng.random() < 0.5 else "",
        old_day if outcome == "agreed" else first_day,
    )  # fmt: skip


def _agreed(s: Scene, rng: random.Random) -> list[str]:
    first = {"activity": s.activity, "day": s.day, "time": s.old_time or s.time, "place": s.place}
    first |= {s.changed: s.old}
    when = _say(s, rng, "when", **first)
    where = f" {first['place']}" if s.place else ""
    turns = [_say(s, rng, "ask", plan=f"{first['activity']}{where} {when}")]
    changes = {"day": f"on {s.day}", "time": f"at {s.time}", "place": s.place}
    new = s.activity
    if s.changed != "activity":
        new = _say(s, rng, "meet", new=changes.get(s.changed, ""))
    offer = _say(s, rng, "offer", new=new)
    yes = _say(s, rng, "yes")
    if s.old_time:
        yes += " " + _say(s, rng, "time too")
    if s.changed:
        no = _say(s, rng, f"no {s.changed}")
        # Sometimes a yes comes first, and the one who proposed takes it all back.
        turns += ["Sure.", f"Oh, wait. {no} {offer}"] if rng.random() < 0.3 else [f"{no} {offer}"]
    turns.append(yes)
    if s.duty:
        speaker = s.a if len(turns) % 2 else s.b  # who says the last turn so far
        mine = speaker == s.bringer
        turns[-1] += " " + _say(s, rng, "my duty" if mine else "your duty")
        turns.append(choose(rng, WORDS["closings"]) if mine else _say(s, rng, "okay"))
    return turns


def _declined(s: Scene, rng: random.Random) -> list[str]:
    turns = [_say(s, rng, "ask")]
    no = _say(s, rng, "no")
    if rng.random() < 0.3:
        turns += ["Sure, I would love to!", f"At {s.time}?", f"Oh no, {s.day}! I have {s.reason}."]
    else:
        turns.append(no)
        if rng.random() < 0.4:
            turns += [f"Not even at {s.time}?", _say(s, rng, "still no")]
    ask, pity = _say(s, rng, "ask another"), _say(s, rng, "pity")
    return [*turns, ask if s.bringer else pity]


def _postponed(s: Scene, rng: random.Random) -> list[str]:
    turns = [_say(s, rng, "sorry")]
    offered = rng.choice([d for d in DAYS if d not in (s.day, s.first_day)])
    if s.changed:
        no = _say(s, rng, "no", new=offered)
        turns.append(_say(s, rng, "offer", new=offered))
    else:
        no = "Oh dear!"
    turns.append(f"{no} {_say(s, rng, 'offer', new=s.day)}")
    return [*turns, _say(s, rng, "yes")]


def _handover(s: Scene, rng: random.Random) -> list[str]:
    turns = [_say(s, rng, "ask")]
    if s.bringer == s.other:
        turns.append(_say(s, rng, "another can"))
    elif s.changed:
        turns += [f"Why not ask {s.other}?", _say(s, rng, "another cannot"), _say(s, rng, "then I")]
    else:
        turns.append(_say(s, rng, "I can"))
    return [*turns, _say(s, rng, "thanks")]


def dialogue(s: Scene, rng: random.Random) -> str:
    """The prompt of a scene: turns that alternate between A and B, then `Summary:`."""
    write = {"agreed": _agreed, "declined": _declined, "postponed": _postponed}
    turns = write.get(s.outcome, _handover)(s, rng)
    if len(turns) < 5 and rng.random() < 0.6:
        talk = choose(rng, WORDS["small talk"])
        c, day = rng.choice([n for n in NAMES if n not in (s.a, s.b)]), rng.choice(DAYS)
        turns = [t.format(b=s.b, c=c, day=day) for t in talk] + turns
    if len(turns) < 3 or (len(turns) < 7 and rng.random() < 0.3):
        last = WORDS["sayings"][s.outcome].get("last word", WORDS["closings"])
        turns.append("Bye!" if turns[-1] in WORDS["closings"] else choose(rng, last))
    return "\n".join(f"{(s.a, s.b)[i % 2]}: {t}" for i, t in enumerate(turns)) + "\nSummary:"


def summary(s: Scene, rng: random.Random) -> str:
    """One wording of how the scene ended: every fact, and nothing that was turned down."""
    where = f" {s.place}" if s.place else ""
    first = _say(s, rng, "summary", plan=f"{s.activity}{where} on {s.day} at {s.time}")
    more = {"agreed": s.duty, "declined": s.bringer, "handover": s.bringer != s.b}.get(s.outcome)
    if not more:
        return first
    verb, _, what = s.duty.partition(" ")
    return f"{first} {_say(s, rng, 'summary, second', verb=verb, what=what)}"


def scenes(split: str) -> list[tuple[Scene, Example]]:
    """The examples of one split, each with the scene it was written from."""
    rng = random.Random(f"{SEED} {split}")  # a string seeds by SHA-512: alike on every machine
    found: list[tuple[Scene, Example]] = []
    seen: set[str] = set()
    while len(found) < SIZES[split]:
        scene = draw(rng)
        if split_of(scene.combination) != split:
            continue
        prompt = dialogue(scene, rng)
        if prompt in seen:
            continue
        seen.add(prompt)
        if split == "train":
            references: tuple[str, ...] = (summary(scene, rng),)
        else:
            references = tuple(dict.fromkeys(summary(scene, rng) for _ in range(12)))[:REFERENCES]
        found.append((scene, Example(prompt, references[0], references)))
    return found


def load() -> Task:
    """The task: 8,000 training, 400 validation and 400 test examples, the same on every machine."""
    train, validation, test = ([e for _, e in scenes(split)] for split in SPLITS)
    return Task("chats", "rouge", train, validation, test)
