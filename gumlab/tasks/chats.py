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
from functools import cache

from gumlab.tasks import Example, Task
from gumlab.tasks._grammar import choose, held_out_split, words

SIZES = {"train": 8_000, "validation": 400, "test": 400}
REFERENCES = 3  # wordings per example of validation and test
SEED = 23

WORDS = words("chats")
NAMES = WORDS["names"]
DAYS = WORDS["days"]
TIMES = WORDS["times"]
CLOSINGS = WORDS["closings"]


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
        """The words that every summary of this scene must contain; "" for what it lacks."""
        shared = (self.a, self.b, self.day)
        if self.outcome == "agreed":
            return (*shared, self.activity, self.time, self.place, _without_verb(self.duty))
        if self.outcome == "declined":
            return (*shared, self.activity, self.reason, self.other if self.bringer else "")
        if self.outcome == "postponed":
            return (*shared, self.noun, self.first_day, self.reason)
        return (*shared, _without_verb(self.activity), self.bringer, self.reason)


def load() -> Task:
    """The task `chats`: the same 8,000, 400 and 400 examples on every machine.

    Returns
    -------
    Task
        With the metric "rouge"; validation and test have up to REFERENCES references an example.
    """
    return Task.generated("chats", "rouge", _examples)


@cache
def _examples(split: str) -> tuple[Example, ...]:
    """The examples of one split, written once in a process."""
    return tuple(example for _, example in scenes(split))


def scenes(split: str) -> list[tuple[Scene, Example]]:
    """The examples of one split, each with the scene it was written from.

    Parameters
    ----------
    split : {"train", "validation", "test"}

    Returns
    -------
    list of (Scene, Example)
    """
    rng = random.Random(f"{SEED} {split}")  # a string seeds by SHA-512: alike on every machine
    pairs: list[tuple[Scene, Example]] = []
    prompts: set[str] = set()
    while len(pairs) < SIZES[split]:
        scene = draw(rng)
        if held_out_split(scene.combination) != split:
            continue
        prompt = dialogue(scene, rng)
        if prompt in prompts:
            continue
        prompts.add(prompt)
        wordings = [summary(scene, rng) for _ in range(1 if split == "train" else 12)]
        references = tuple(dict.fromkeys(wordings))[:REFERENCES]
        pairs.append((scene, Example(prompt, references[0], references)))
    return pairs


def draw(rng: random.Random) -> Scene:
    """A random scene."""
    # The richest outcome comes twice as often.
    outcome = rng.choice(("agreed", "agreed", "declined", "postponed", "handover"))
    topic = WORDS["topics"][rng.choice(list(WORDS["topics"]))]
    (activity, noun, duty), (old_activity, _, _) = rng.sample(topic["activities"], 2)
    a, b, other = rng.sample(NAMES, 3)
    day, old_day, first_day = rng.sample(DAYS, 3)
    time, old_time = rng.sample(TIMES, 2)
    place, old_place = rng.sample(topic["places"], 2)
    changed = rng.choice(("day", "day", "time", "place", "activity", ""))
    turned_down = {
        "day": old_day,
        "time": old_time,
        "place": old_place,
        "activity": old_activity,
        "": "",
    }
    extra = rng.choice(("place", "duty", "duty", ""))  # one of the two, to keep dialogues short
    if outcome == "declined":
        bringer = rng.choice((other, ""))
    elif outcome == "handover":
        bringer = rng.choice((b, b, other))
    else:
        bringer = rng.choice((a, b))
    if outcome == "handover":
        activity = rng.choice(topic["tasks"])
    reason = rng.choice(WORDS["reasons"])
    time_changes_too = changed == "day" and rng.random() < 0.5
    return Scene(
        outcome=outcome,
        a=a,
        b=b,
        other=other,
        activity=activity,
        noun=noun,
        day=day,
        time=time,
        place=place if extra == "place" or changed == "place" else "",
        duty=duty if extra == "duty" and changed != "place" else "",
        bringer=bringer,
        reason=reason,
        changed=changed,
        old=turned_down[changed],
        old_time=old_time if time_changes_too else "",
        first_day=old_day if outcome == "agreed" else first_day,
    )


def dialogue(s: Scene, rng: random.Random) -> str:
    """The prompt of a scene: turns that alternate between A and B, then `Summary:`."""
    write = {
        "agreed": _agreed,
        "declined": _declined,
        "postponed": _postponed,
        "handover": _handover,
    }[s.outcome]
    turns = write(s, rng)
    if len(turns) < 5 and rng.random() < 0.6:
        turns = [*_small_talk(s, rng), *turns]
    if len(turns) < 3 or (len(turns) < 7 and rng.random() < 0.3):
        if turns[-1] in CLOSINGS:
            turns.append("Bye!")
        else:
            turns.append(choose(rng, WORDS["sayings"][s.outcome].get("last word", CLOSINGS)))
    lines = []
    for number, turn in enumerate(turns):
        speaker = s.a if number % 2 == 0 else s.b
        lines.append(f"{speaker}: {turn}")
    return "\n".join([*lines, "Summary:"])


def summary(s: Scene, rng: random.Random) -> str:
    """One wording of how the scene ended: every fact, and nothing that was turned down."""
    where = f" {s.place}" if s.place else ""
    first = _say(s, rng, "summary", plan=f"{s.activity}{where} on {s.day} at {s.time}")
    has_second = {
        "agreed": bool(s.duty),
        "declined": bool(s.bringer),
        "postponed": False,
        "handover": s.bringer != s.b,
    }[s.outcome]
    if not has_second:
        return first
    verb, _, what = s.duty.partition(" ")
    return f"{first} {_say(s, rng, 'summary, second', verb=verb, what=what)}"


def _say(s: Scene, rng: random.Random, kind: str, **values: str) -> str:
    """One of the outcome's wordings of something, filled with the scene and what else is given."""
    wording = choose(rng, WORDS["sayings"][s.outcome][kind])
    return wording.format(**(vars(s) | values))


def _without_verb(phrase: str) -> str:
    """What stands after the first word: "the flour" of "buy the flour"."""
    return phrase.split(" ", 1)[-1]


def _small_talk(s: Scene, rng: random.Random) -> list[str]:
    """Two turns that have nothing to do with the plan."""
    turns = choose(rng, WORDS["small talk"])
    absent = rng.choice([name for name in NAMES if name not in (s.a, s.b)])
    day = rng.choice(DAYS)
    return [turn.format(b=s.b, c=absent, day=day) for turn in turns]


def _agreed(s: Scene, rng: random.Random) -> list[str]:
    """The turns of a plan that is made, perhaps after something in it was changed."""
    proposed = {
        "activity": s.activity,
        "day": s.day,
        "time": s.old_time or s.time,
        "place": s.place,
    }
    if s.changed:
        proposed[s.changed] = s.old
    when = _say(s, rng, "when", **proposed)
    where = f" {proposed['place']}" if s.place else ""
    turns = [_say(s, rng, "ask", plan=f"{proposed['activity']}{where} {when}")]

    if s.changed == "activity":
        new = s.activity
    else:
        changes = {"day": f"on {s.day}", "time": f"at {s.time}", "place": s.place, "": ""}
        new = _say(s, rng, "meet", new=changes[s.changed])
    offer = _say(s, rng, "offer", new=new)
    yes = _say(s, rng, "yes")
    if s.old_time:
        yes += " " + _say(s, rng, "time too")
    if s.changed:
        no = _say(s, rng, f"no {s.changed}")
        if rng.random() < 0.3:  # sometimes a yes comes first, and the proposer takes it all back
            turns += ["Sure.", f"Oh, wait. {no} {offer}"]
        else:
            turns.append(f"{no} {offer}")
    turns.append(yes)

    if s.duty:
        last_speaker = s.a if len(turns) % 2 == 1 else s.b
        is_own_duty = last_speaker == s.bringer
        turns[-1] += " " + _say(s, rng, "my duty" if is_own_duty else "your duty")
        turns.append(choose(rng, CLOSINGS) if is_own_duty else _say(s, rng, "okay"))
    return turns


def _declined(s: Scene, rng: random.Random) -> list[str]:
    """The turns of a proposal that B turns down, perhaps after a yes."""
    turns = [_say(s, rng, "ask")]
    no = _say(s, rng, "no")
    if rng.random() < 0.3:
        turns += ["Sure, I would love to!", f"At {s.time}?", f"Oh no, {s.day}! I have {s.reason}."]
    else:
        turns.append(no)
        if rng.random() < 0.4:
            turns += [f"Not even at {s.time}?", _say(s, rng, "still no")]
    ask_another = _say(s, rng, "ask another")
    pity = _say(s, rng, "pity")
    turns.append(ask_another if s.bringer else pity)
    return turns


def _postponed(s: Scene, rng: random.Random) -> list[str]:
    """The turns of a date that is moved, perhaps after a first new day was refused."""
    turns = [_say(s, rng, "sorry")]
    refused_day = rng.choice([day for day in DAYS if day not in (s.day, s.first_day)])
    if s.changed:
        no = _say(s, rng, "no", new=refused_day)
        turns.append(_say(s, rng, "offer", new=refused_day))
    else:
        no = "Oh dear!"
    turns.append(f"{no} {_say(s, rng, 'offer', new=s.day)}")
    turns.append(_say(s, rng, "yes"))
    return turns


def _handover(s: Scene, rng: random.Random) -> list[str]:
    """The turns of a task that B, or somebody B names, does for A."""
    turns = [_say(s, rng, "ask")]
    if s.bringer == s.other:
        turns.append(_say(s, rng, "another can"))
    elif s.changed:
        turns.append(f"Why not ask {s.other}?")
        turns.append(_say(s, rng, "another cannot"))
        turns.append(_say(s, rng, "then I"))
    else:
        turns.append(_say(s, rng, "I can"))
    turns.append(_say(s, rng, "thanks"))
    return turns
