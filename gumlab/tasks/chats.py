"""Chats: a short dialogue to a one- or two-sentence summary of how it ended, scored by ROUGE.

All names, scenes and sentences are our own. A dialogue has 3 to 7 turns. Grammar:

    prompt    = [small talk] exchange [closing] Summary:
    agreed    = A proposes, B turns part of it down and offers another day, time, place or
                activity (or changes it later), A accepts; one of them takes on a duty
    declined  = A proposes, B has a reason not to, perhaps after a yes; A may ask somebody else
    postponed = A cannot keep a date, a first new day is refused, a second is accepted
    handover  = A cannot do a task; B, or somebody B names, does it
    target    = the final plan: who, what, day, time, place or duty, reason

Proposals that were turned down, and small talk, stay out of the summary.

Held out: the triple (activity or task, outcome, final day). Each triple belongs to one split by a
stable hash, so no triple of the test or validation split occurs in train.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._chat_topics import (
    CLOSING,
    DAYS,
    LAST_WORD,
    NAMES,
    OUTCOMES,
    REASONS,
    SMALL_TALK,
    TIMES,
    TOPICS,
)
from gumlab.tasks._grammar import choose, sentence, split_of

SIZES = {"train": 8_000, "validation": 400, "test": 400}
REFERENCES = 3  # wordings per example of validation and test
SEED = 23


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
        shared = (self.a, self.b, self.day)
        return (
            shared
            + {
                "agreed": (self.activity, self.time, self.place, self.duty.split(" ", 1)[-1]),
                "declined": (self.activity, self.reason, self.other if self.bringer else ""),
                "postponed": (self.noun, self.first_day, self.reason),
                "handover": (self.activity.split(" ", 1)[1], self.bringer, self.reason),
            }[self.outcome]
        )


def draw(rng: random.Random) -> Scene:
    """A random scene."""
    outcome = rng.choice(("agreed", *OUTCOMES))  # the richest comes twice as often
    activities, places, tasks = TOPICS[rng.choice(list(TOPICS))]
    chosen, second = rng.sample(activities, 2)
    a, b, other = rng.sample(NAMES, 3)
    day, old_day, first_day = rng.sample(DAYS, 3)
    time, old_time = rng.sample(TIMES, 2)
    place, old_place = rng.sample(places, 2)
    olds = {"day": old_day, "time": old_time, "place": old_place, "activity": second[0], "": ""}
    changed = rng.choice(("day", "day", "time", "place", "activity", ""))
    extra = rng.choice(("place", "duty", "duty", ""))  # one of the two, to keep dialogues short
    bringer = rng.choice({"declined": (other, ""), "handover": (b, b, other)}.get(outcome, (a, b)))
    return Scene(
        outcome, a, b, other, rng.choice(tasks) if outcome == "handover" else chosen[0], chosen[1],
        day, time, place if extra == "place" or changed == "place" else "",
        chosen[2] if extra == "duty" and changed != "place" else "", bringer, rng.choice(REASONS),
        changed, olds[changed], old_time if changed == "day" and rng.random() < 0.5 else "",
        old_day if outcome == "agreed" else first_day,
    )  # fmt: skip


def _agreed(s: Scene, rng: random.Random) -> list[str]:
    plan = {"activity": s.activity, "day": s.day, "time": s.time, "place": s.place}
    first = plan | ({"time": s.old_time} if s.old_time else {}) | {s.changed: s.old}
    when = choose(rng, ("on {day} at {time}", "at {time} on {day}")).format(**first)
    where = f" {first['place']}" if s.place else ""
    ask = choose(rng, ("Shall we {}?", "Do you want to {}?", "Let us {}.", "How about we {}?"))
    turns = [ask.format(f"{first['activity']}{where} {when}")]
    new = {"day": f"on {s.day}", "time": f"at {s.time}", "": ""}.get(s.changed, plan.get(s.changed))
    refusals = {
        "day": ("{old} is bad, I have {reason}.", "I am busy on {old}.", "Not {old}, please."),
        "time": ("At {old} I am still at work.", "I cannot make it at {old}.", "Not at {old}."),
        "place": ("It is too crowded {old}.", "Not {old} again!"),
        "activity": ("I do not want to {old}.", "I would rather not {old}."),
    }
    todo = new if s.changed == "activity" else f"{choose(rng, ('meet', 'do it'))} {new}"
    offer = choose(rng, ("Can we {} instead?", "Why don't we {}?", "Could we {}?")).format(todo)
    yes = choose(rng, ("Good idea.", "Sure.", "That works.", "Yes, fine."))
    if s.old_time:
        yes += choose(rng, (f" But at {s.time}, not at {s.old_time}.", f" Only, make it {s.time}."))
    if s.changed:
        no = choose(rng, refusals[s.changed]).format(old=s.old, reason=s.reason)
        # Sometimes a yes comes first, and the one who proposed takes it all back.
        turns += ["Sure.", f"Oh, wait. {no} {offer}"] if rng.random() < 0.3 else [f"{no} {offer}"]
    turns.append(yes)
    if s.duty:
        speaker = s.a if len(turns) % 2 else s.b  # who says the last turn so far
        mine = ("I will {}.", "I can {}.") if speaker == s.bringer else (
            "Can you {}?", "Will you {}?", "Please {}.")  # fmt: skip
        turns[-1] += " " + choose(rng, mine).format(s.duty)
        turns.append(choose(rng, ("Okay.", "Will do.", "Of course.")) if speaker != s.bringer
                     else choose(rng, CLOSING))  # fmt: skip
    return turns


def _declined(s: Scene, rng: random.Random) -> list[str]:
    ask = choose(rng, ("Shall we {}?", "Do you want to {}?", "Will you {} with me?"))
    turns = [ask.format(f"{s.activity} on {s.day}")]
    no = choose(rng, ("Sorry, I have {}.", "I cannot, I have {}.", "No, I have {} that day."))
    if rng.random() < 0.3:
        turns += ["Sure, I would love to!", f"At {s.time}?", f"Oh no, {s.day}! I have {{}}."]
    else:
        turns += [no]
        if rng.random() < 0.4:
            turns += [f"Not even at {s.time}?", choose(rng, ("No, sorry.", "Not this week."))]
    ask_other = choose(rng, ("Then I will ask {}.", "Okay, I will ask {} instead."))
    sad = choose(rng, ("What a pity.", "Never mind.", f"{s.other} is away too. A pity."))
    return [t.format(s.reason) for t in turns] + [ask_other.format(s.other) if s.bringer else sad]


def _postponed(s: Scene, rng: random.Random) -> list[str]:
    sorry = choose(rng, ("I have {r}, so {n} on {d} is off.", "About {n} on {d}: I have {r}.",
                         "I cannot come on {d}. I have {r}. Can we move {n}?"))  # fmt: skip
    turns = [sorry.format(r=s.reason, n=s.noun, d=s.first_day)]
    offers = ("How about {}?", "Does {} suit you?", "{} then?")
    offered = rng.choice([d for d in DAYS if d not in (s.day, s.first_day)])
    if s.changed:
        no = choose(rng, ("{} is full.", "Not {}, I work.", "{} is no good.")).format(offered)
        turns += [choose(rng, offers).format(offered),
                  f"{no} {choose(rng, offers).format(s.day)}"]  # fmt: skip
    else:
        turns += [f"Oh dear! {choose(rng, offers).format(s.day)}"]
    return [*turns, choose(rng, ("{} is fine.", "Yes, {} works.", "Okay, {}.")).format(s.day)]


def _handover(s: Scene, rng: random.Random) -> list[str]:
    ask = choose(rng, ("I have {r} and cannot {t} on {d}. Can you?",
                       "Can you {t} on {d}? I have {r}.",
                       "Who can {t} on {d}? I have {r}."))  # fmt: skip
    turns = [ask.format(r=s.reason, t=s.activity, d=s.day)]
    if s.bringer == s.other:
        turns.append(choose(rng, ("I am away, but {} can do it.", "Not me. {} will do it.",
                                  "I just asked {}, who has time.")).format(s.other))  # fmt: skip
    elif s.changed:
        turns += [f"Why not ask {s.other}?", f"{s.other} is {choose(rng, ('ill', 'away'))}.",
                  choose(rng, ("Then I will do it.", "All right, I can."))]  # fmt: skip
    else:
        turns.append(choose(rng, ("Sure, I will do it.", "No problem, I can.")))
    return [*turns, choose(rng, ("Thank you!", "Thanks a lot!", "You are a star!"))]


def dialogue(s: Scene, rng: random.Random) -> str:
    """The prompt of a scene: turns that alternate between A and B, then `Summary:`."""
    write = {"agreed": _agreed, "declined": _declined, "postponed": _postponed}
    turns = write.get(s.outcome, _handover)(s, rng)
    if len(turns) < 5 and rng.random() < 0.6:
        talk = choose(rng, SMALL_TALK)
        c, day = rng.choice([n for n in NAMES if n not in (s.a, s.b)]), rng.choice(DAYS)
        turns = [t.format(b=s.b, c=c, day=day) for t in talk] + turns
    if len(turns) < 3 or (len(turns) < 7 and rng.random() < 0.3):
        turns.append("Bye!" if turns[-1] in CLOSING else choose(
            rng, LAST_WORD.get(s.outcome, CLOSING)))  # fmt: skip
    return "\n".join(f"{(s.a, s.b)[i % 2]}: {t}" for i, t in enumerate(turns)) + "\nSummary:"


def summary(s: Scene, rng: random.Random) -> str:
    """One wording of how the scene ended: every fact, and nothing that was turned down."""
    where = f" {s.place}" if s.place else ""
    if s.outcome == "agreed":
        plan = f"{s.activity}{where} on {s.day} at {s.time}"
        first = choose(rng, ("{a} and {b} will {p}", "{a} and {b} agree to {p}",
                             "{a} is meeting {b} to {p}"))  # fmt: skip
        first = sentence(first.format(a=s.a, b=s.b, p=plan))
        if not s.duty:
            return first
        verb, what = s.duty.split(" ", 1)
        does = choose(rng, (f"{verb}s", f"will {verb}", f"promises to {verb}"))
        return f"{first} {s.bringer} {does} {what}."
    wordings = {
        "declined": ("{b} cannot {t} with {a} on {d} because of {r}.",
                     "{b} has {r} and will not {t} with {a} on {d}.",
                     "{a} wants to {t} on {d}, but {b} has {r}."),
        "postponed": ("{a} has {r}, so {a} and {b} move {n} from {f} to {d}.",
                      "{a} and {b} move {n} from {f} to {d} because {a} has {r}.",
                      "{a} and {b} put off {n} from {f} until {d} because of {r}."),
        "handover": ("{x} will {t} on {d} because {a} has {r}.",
                     "{a} has {r}, so {x} will {t} on {d}.",
                     "{x} will {t} for {a} on {d}, as {a} has {r}."),
    }[s.outcome]  # fmt: skip
    first = choose(rng, wordings).format(
        a=s.a, b=s.b, d=s.day, f=s.first_day, n=s.noun, r=s.reason, t=s.activity, x=s.bringer
    )
    if s.outcome == "handover" and s.bringer != s.b:
        return f"{first} {choose(rng, (f'{s.b} suggested it', f'It was the idea of {s.b}'))}."
    if s.outcome == "declined" and s.bringer:
        return f"{first} {s.a} {choose(rng, ('will ask', 'asks'))} {s.bringer} instead."
    return first


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
    return Task("chats", "rouge", **{split: [e for _, e in scenes(split)] for split in SPLITS})
