"""The generated tasks restaurants and chats: properties that every example must have."""

import copy
import dataclasses
import functools
import hashlib
import itertools
import pickle
import random
import re

import pytest

from gumlab.tasks import SPLITS, Example, Task, chats, load_task, restaurants
from gumlab.tasks._grammar import choose_by_sums

MODULES = {"restaurants": restaurants, "chats": chats}
both = pytest.mark.parametrize("name", MODULES)

# Written here by hand, apart from the grammar, so that a wrong wording there is found.
RESTAURANT_WORDS = {
    "cheap": r"cheap|low-priced|inexpensive|low prices|(prices are|price range is) low",
    "moderate": r"moderately priced|mid-priced|moderate prices|(prices are|range is) moderate",
    "high": r"(?<!in)expensive|high-priced|high prices|(prices are|price range is) high",
    "riverside": r"river",
    "city centre": r"city centre|centre of the city",
    "old town": r"old town|old part of town",
    "university quarter": r"university (quarter|area)",
}
RATING_WORDS = {
    "low": r"(low-|poorly )rated|low (customer )?rating|rated? (it )?low|rating is low",
    "average": r"average-rated|average (customer )?rating|rated? (it )?average|rating is average",
    "high": r"(highly |top-)rated|high (customer )?rating|rated? (it )?high|rating is high",
}
NOT_FAMILY = r"adults|non family|not (family|child) friendly|not (welcome|allowed)"
FAMILY = r"(family|child|kid) friendly|welcomes|are welcome"


@functools.cache
def loaded(name):
    """A task, loaded where a test first asks for it: every process imports this file."""
    return MODULES[name].load()


scenes = functools.cache(chats.scenes)


def said(attribute, value, text):
    if attribute == "familyFriendly":
        negative = bool(re.search(NOT_FAMILY, text))
        return negative if value == "no" else not negative and bool(re.search(FAMILY, text))
    words = {"customer rating": RATING_WORDS, "priceRange": RESTAURANT_WORDS,
             "area": RESTAURANT_WORDS}.get(attribute, {})  # fmt: skip
    pattern = words.get(value, rf"(?<!\w){re.escape(value)}\b")
    return bool(re.search(pattern, text, 0 if attribute in ("name", "near") else re.IGNORECASE))


def everything(name):
    return [e for split in SPLITS for e in loaded(name).split(split)]


def word_in(word, text):
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


# The built-in models learned from these, and the stored results rest on them.
FINGERPRINTS = {
    "restaurants": "3576a9dcee17e46143e9d41d15a7d2c70b7ac4e3eef665fef170a06392975c3c",
    "chats": "cd9ca56c5bb8386c44deb1b848240bb11989b942875f9bb4f8e7700439c4866a",
}


@both
def test_the_examples_stay_as_they_were(name):
    text = repr([(e.prompt, e.target, e.references) for e in everything(name)])
    assert hashlib.sha256(text.encode("utf-8")).hexdigest() == FINGERPRINTS[name]


def test_choosing_by_sums_draws_what_choices_draws():
    ours, pythons = random.Random(0), random.Random(0)
    for number in range(1000):
        options = range(1 + number % 7)
        sums = list(itertools.accumulate(1 / (n + 1) for n in options))
        assert choose_by_sums(ours, options, sums) == pythons.choices(options, cum_weights=sums)[0]
    assert ours.getstate() == pythons.getstate()


@both
def test_sizes_and_references(name):
    task = loaded(name)
    assert [len(task.split(s)) for s in SPLITS] == [8_000, 400, 400]
    assert all(e.references == (e.target,) for e in task.train)
    most = MODULES[name].REFERENCES
    for example in task.validation + task.test:
        assert example.references[0] == example.target
        assert 2 <= len(example.references) <= most
        assert len(set(example.references)) == len(example.references)
    assert sum(len(e.references) == most for e in task.test) > 0.8 * len(task.test)


@both
def test_built_twice_is_equal(name):
    first = loaded(name)
    if name == "restaurants":
        restaurants._examples.cache_clear()  # or what was drawn before would come back
        again = restaurants.load()
        assert all(again.split(s) == first.split(s) for s in SPLITS)
    else:  # scenes() was called apart from load()
        assert all([e for _, e in scenes(s)] == first.split(s) for s in SPLITS)


@both
def test_to_load_a_task_writes_none_of_its_splits(name):
    task = load_task(name)
    assert not vars(task).keys() & set(SPLITS)
    assert task.validation
    assert vars(task).keys() & set(SPLITS) == {"validation"}


@both
def test_what_is_loaded_again_is_a_list_of_its_own(name):
    MODULES[name].load().train.clear()
    assert MODULES[name].load().train == loaded(name).train


@both
def test_prompts_do_not_cross_splits(name):
    prompts = {s: {e.prompt for e in loaded(name).split(s)} for s in SPLITS}
    assert not prompts["train"] & (prompts["validation"] | prompts["test"])
    assert not prompts["validation"] & prompts["test"]
    assert len(prompts["test"]) == len(prompts["validation"]) == 400


@both
def test_held_out_combinations_do_not_cross_splits(name):
    if name == "restaurants":
        sets = {
            s: {restaurants.combination(restaurants.parse(e.prompt)) for e in loaded(name).split(s)}
            for s in SPLITS
        }
    else:
        sets = {s: {scene.combination for scene, _ in scenes(s)} for s in SPLITS}
    assert not sets["train"] & (sets["validation"] | sets["test"])
    assert not sets["validation"] & sets["test"]
    assert min(len(found) for found in sets.values()) >= 30
    # Each single value is known from training: only their combination is new.
    for i in range(3):
        assert {c[i] for c in sets["test"]} <= {c[i] for c in sets["train"]}


@both
def test_text_is_clean(name):
    for example in everything(name):
        for text in (example.prompt, *example.references):
            assert not re.search(r"  |\{|^\s|\s$", text)
            for art, letter in re.findall(r"\b([Aa]n?) (\w)", text):
                assert (art.lower() == "an") == (letter.lower() in "aeiou"), text
        for text in example.references:
            assert re.fullmatch(r"[A-Z][^.]*\.( [A-Z][^.]*\.)?", text), text


@both
def test_variety(name):
    train = loaded(name).train
    assert len({e.target for e in train}) > 6_000
    assert len({e.prompt for e in train}) > 6_000
    # Wordings, names left aside: a template grammar would have only a few.
    assert len({re.sub(r"\b[A-Z]\w+", "X", e.target) for e in train}) > 1_000


def test_restaurant_prompts_are_in_e2e_notation():
    order = list(restaurants.VALUES)
    for example in everything("restaurants"):
        assert re.fullmatch(r"name\[[^]]+\](, [a-zA-Z ]+\[[^]]+\]){2,7} ->", example.prompt)
        found = restaurants.parse(example.prompt)
        assert list(found) == sorted(found, key=order.index)
        assert all(value in restaurants.VALUES[a] for a, value in found.items())


def test_restaurant_references_realise_every_attribute_and_no_other_name():
    for example in everything("restaurants"):
        found = restaurants.parse(example.prompt)
        for text in example.references:
            missing = [(a, v) for a, v in found.items() if not said(a, v, text)]
            assert not missing, (missing, text)
            # Names are kept out of the search: "Old Compass" is neither cheap nor in town.
            rest = text.replace(found["name"], "").replace(found.get("near", "-"), "")
            for attribute in {"food", "eatType", "priceRange", "customer rating"} - set(found):
                values = restaurants.VALUES[attribute]
                assert not any(said(attribute, v, rest) for v in values), (attribute, text)


def test_chat_dialogues_have_three_to_seven_alternating_turns():
    for split in SPLITS:
        for scene, example in scenes(split):
            *turns, last = example.prompt.split("\n")
            assert last == "Summary:"
            assert 3 <= len(turns) <= 7
            speakers = [turn.split(": ")[0] for turn in turns]
            assert speakers == [(scene.a, scene.b)[i % 2] for i in range(len(turns))]
            assert len(example.prompt.split()) <= 80


def test_chat_summaries_say_the_final_plan_and_not_the_rejected_one():
    rejected = 0
    for split in SPLITS:
        for scene, example in scenes(split):
            # The dialogue holds all that the summary needs, and each fact is in each summary.
            for text in (example.prompt, *example.references):
                assert all(word_in(f, text) for f in scene.facts if f), (scene.facts, text)
            known = {scene.day, scene.first_day} if scene.outcome == "postponed" else {scene.day}
            for text in example.references:
                assert {d for d in chats.DAYS if word_in(d, text)} == known, text
                if scene.outcome == "agreed":
                    assert [t for t in chats.TIMES if word_in(t, text)] == [scene.time], text
            if scene.outcome == "agreed" and scene.changed:
                rejected += 1
                assert word_in(scene.old, example.prompt)
                assert not any(word_in(scene.old, text) for text in example.references)
    assert rejected > 2_000


def test_chat_duty_goes_to_whoever_took_it_on():
    """Recovered from the dialogue alone: "I will" binds the speaker, "can you" the other one."""
    checked = 0
    for scene, example in scenes("train"):
        if scene.outcome != "agreed" or not scene.duty:
            continue
        line = next(t for t in example.prompt.split("\n") if scene.duty in t)
        speaker = line.split(": ")[0]
        mine = re.search(rf"I (will|can) {scene.duty}", line) is not None
        owner = speaker if mine else ({scene.a, scene.b} - {speaker}).pop()
        verb, what = scene.duty.split(" ", 1)
        assert re.search(rf"\b{owner} (\w+ )*{verb}s? {what}", example.target.split(". ")[1])
        checked += 1
    assert checked > 500


@pytest.fixture
def told():
    """A generated task, and the splits that were written so far."""
    written = []

    def write(split: str) -> tuple[Example, ...]:
        written.append(split)
        return (Example(f"{split}:", " text"),)

    return Task.generated("own", "bleu", write), written


def test_a_split_is_written_when_it_is_first_read(told):
    task, written = told
    assert written == []
    assert task.split("validation") == [Example("validation:", " text")]
    assert task.validation is task.validation
    assert written == ["validation"]
    assert repr(task) == "Task(own: train 1, validation 1, test 1; metric bleu)"
    assert sorted(written) == sorted(SPLITS)


def test_a_built_in_task_is_loaded_without_writing_what_nobody_reads():
    task = load_task("restaurants")
    task.split("validation")
    assert "train" not in vars(task)
    assert len(task.train) == 8_000


def test_a_generated_task_is_a_task_in_every_way(told):
    task, _ = told
    plain = Task("own", "bleu", *([Example(f"{split}:", " text")] for split in SPLITS))
    assert task == plain
    assert dataclasses.replace(task, train=[]) == dataclasses.replace(plain, train=[])
    task.train = task.train * 2
    assert len(task.train) == 2
    assert not hasattr(task, "trian")
    for name in ("restaurants", "chats"):
        built_in = load_task(name)
        assert pickle.loads(pickle.dumps(built_in)) == copy.deepcopy(built_in) == load_task(name)
