"""Metrics against the libraries' own front doors, losses against Hugging Face's."""

import math
import subprocess
import sys

import pytest
import torch
from helpers.models import CONTEXT, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from rouge_score.rouge_scorer import RougeScorer

import gumlab as gl
from gumlab.evaluation import METRICS, bleu, evaluate, generate, mean_target_loss, rouge
from gumlab.tasks import Example, Task

OUTPUTS = [
    "The Mill is a cheap pub near the river .",
    "Zizzi serves Thai food, and it is child friendly.",
    "A place called Aromi has a rating of 3 out of 5",
    "",
]
REFERENCES = [
    (
        "The Mill is a cheap pub by the river.",
        "Near the river is The Mill, a cheap pub.",
        "Cheap pub: The Mill.",
    ),
    ("Zizzi is child friendly and serves Thai food.",),
    ("Aromi has a customer rating of 3 out of 5.", "Rated 3 out of 5, Aromi is a place to go."),
    ("Nothing was said.",),
]
JUDGED = [Example("p", r[0], r) for r in REFERENCES]


def test_bleu_is_what_sacrebleu_prints(tmp_path):
    """Its command line with three reference files; repeating a reference changes nothing."""
    (tmp_path / "hyp").write_text("\n".join(OUTPUTS) + "\n")
    for k in range(3):
        lines = [r[k] if k < len(r) else r[0] for r in REFERENCES]
        (tmp_path / f"ref{k}").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-W", "ignore", "-m", "sacrebleu", *(f"ref{k}" for k in range(3))]
    printed = subprocess.run(
        [*command, "-i", "hyp", "-b", "-w", "6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert bleu(OUTPUTS, JUDGED)["bleu"] == pytest.approx(float(printed), abs=1e-5)
    assert 10 < float(printed) < 90


def test_bleu_counts_every_reference():
    said = [r[-1] for r in REFERENCES]
    assert bleu(said, JUDGED)["bleu"] == pytest.approx(100)
    first_only = [Example("p", r[0]) for r in REFERENCES]
    assert bleu(said, first_only)["bleu"] < 90


def test_rouge_is_rouge_score_with_the_best_reference():
    got = rouge(OUTPUTS, JUDGED)
    for kind in ("rouge1", "rouge2", "rougeL"):
        scorer = RougeScorer([kind], use_stemmer=True)
        best = [
            max(scorer.score(r, o)[kind].fmeasure for r in refs)
            for o, refs in zip(OUTPUTS, REFERENCES, strict=True)
        ]
        assert got[kind] == pytest.approx(100 * sum(best) / len(best))


def test_sql_counts_equal_queries_and_equal_results():
    databases = ({"t": (["a", "b"], [(1, 2), (3, 4)])}, {"t": (["a", "b"], [(5, 2), (7, 4)])})
    examples = [Example("p", "SELECT a FROM t WHERE b = 2", databases=databases)] * 4
    outputs = [
        "SELECT a FROM t WHERE b = 2",
        "SELECT a FROM t WHERE b < 3",  # the same rows, another query
        "SELECT b FROM t WHERE b = 2",
        "SELEKT a",
    ]
    assert METRICS["sql"](outputs, examples) == {"execution": 50.0, "exact_match": 25.0}


def test_the_loss_is_hugging_faces_own(model, tokenizer, examples):
    for example in examples[:3]:
        batch = one_batch(model, tokenizer, [example])
        with torch.no_grad():
            theirs = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.item()
        assert mean_target_loss(model, tokenizer, [example]) == pytest.approx(theirs, rel=1e-4)


def test_the_loss_weighs_tokens_not_examples(gpt2, tokenizer):
    long, short = Example("w4 w5", " ".join(["w6"] * 20)), Example("w7", "w8")
    one, other = (mean_target_loss(gpt2, tokenizer, [e]) for e in (long, short))
    together = mean_target_loss(gpt2, tokenizer, [long, short])
    assert together == pytest.approx((21 * one + 2 * other) / 23, rel=1e-4)


def greedy(model, tokenizer, prompt, room):
    """The most likely next token, again and again, without padding and without a cache."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    while len(ids) < start + room:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def test_generation_in_batches_is_greedy_generation_one_by_one(model, tokenizer, examples):
    longest = max(len(e.target.split()) for e in examples)
    room = int(1.5 * longest) + 2
    wanted = [greedy(model, tokenizer, e.prompt, room) for e in examples]
    assert len({len(e.prompt.split()) for e in examples}) > 3
    assert generate(model, tokenizer, examples, 5) == wanted
    assert any(wanted)


@pytest.mark.parametrize("name", ["gpt2", "llama"])  # absolute and rotary positions
@pytest.mark.parametrize("beams", [1, 3])
def test_padding_on_the_left_and_batches_change_no_text(name, beams, tokenizer, examples):
    """transformers' own generation, one prompt at a time without padding, is the twin."""
    model, room = tiny(name, seed=3), 12
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    one_by_one = []
    for example in examples:
        ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
        out = model.generate(
            ids, max_new_tokens=room, num_beams=beams, do_sample=False, eos_token_id=0
        )
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        one_by_one.append(text.strip())
    padded = [Example(e.prompt, " ".join(["w4"] * 7)) for e in examples]  # int(1.5 * 7) + 2 = 12
    for size in (1, 5, 12):
        assert generate(model, tokenizer, padded, size, beams=beams) == one_by_one
    assert len(set(one_by_one)) > 3


def test_evaluate_judges_the_texts_of_its_beams(tokenizer, examples):
    model = tiny("gpt2", seed=3)
    wrote = generate(model, tokenizer, examples, beams=3)
    pairs = zip(examples, wrote, strict=True)
    task = Task("t", "bleu", test=[Example(e.prompt, text) for e, text in pairs])
    got = [evaluate(model, tokenizer, task, beams=beams)["bleu"] for beams in (1, 3)]
    assert got[1] == bleu(generate(model, tokenizer, task.test, beams=3), task.test)["bleu"]
    assert got[1] > got[0]


def test_beams_find_another_text_than_greedy(tokenizer, examples):
    model = tiny("gpt2", seed=3)
    assert generate(model, tokenizer, examples, beams=3) != generate(model, tokenizer, examples)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_long_prompt_leaves_less_room_whatever_its_batch(name, tokenizer):
    """Longest reference 40 tokens: 62 wanted, so 48, 32 or 16 of the context of 64 are left."""
    model = tiny(name, seed=5)
    rooms = {5: 48, 16: 48, 17: 32, 32: 32, 33: 16, 48: 16, 61: 16}
    prompts = {n: " ".join(f"w{4 + (n * i) % 60}" for i in range(n)) for n in rooms}
    examples = [Example(p, " ".join(["w9"] * 40)) for p in prompts.values()]
    wanted = [
        greedy(model, tokenizer, " ".join(prompts[n].split()[-48:]), room)
        for n, room in rooms.items()
    ]
    for size in (1, 3, 7):
        with pytest.warns(UserWarning, match="1 of 7 prompts are longer than 48 tokens"):
            assert generate(model, tokenizer, examples, size) == wanted


def test_generation_stops_at_the_end_of_text(gpt2, tokenizer, examples):
    gl.train(gpt2, tokenizer, examples, steps=80, lr=2e-2, batch_size=12, progress=False)
    outputs = generate(gpt2, tokenizer, examples)
    assert sum(o == e.target for o, e in zip(outputs, examples, strict=True)) >= 6
    assert any(len(o.split()) < max(len(e.target.split()) for e in examples) for o in outputs)


def test_long_prompts_are_cut_to_leave_room(gpt2, tokenizer):
    long = Example(" ".join(["w9"] * (2 * CONTEXT)), "w4 w5 w6")
    room = int(1.5 * 3) + 2
    kept = " ".join(["w9"] * (CONTEXT - room))
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than 58 tokens") as said:
        wrote = generate(gpt2, tokenizer, [long, Example("w4", "w5")], batch_size=1)
    assert wrote[0] == greedy(gpt2, tokenizer, kept, room)
    assert len(said) == 1  # once, not per batch


def test_a_tokenizer_without_a_padding_token_pads_with_any(gpt2, examples):
    """Padding is masked, so which token stands there cannot matter."""
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    assert generate(gpt2, tokenizer, examples) == generate(gpt2, word_tokenizer(), examples)


def test_evaluate_gives_loss_perplexity_and_the_metric(gpt2, tokenizer, task):
    got = evaluate(gpt2, tokenizer, task)
    assert list(got) == ["loss", "perplexity", "bleu"]
    assert got["loss"] == mean_target_loss(gpt2, tokenizer, task.test)
    assert got["perplexity"] == pytest.approx(math.exp(got["loss"]))
    assert got["bleu"] == bleu(generate(gpt2, tokenizer, task.test), task.test)["bleu"]
    assert list(evaluate(gpt2, tokenizer, task, generated=0)) == ["loss", "perplexity"]
    few = evaluate(gpt2, tokenizer, task, "validation", limit=2, generated=1)
    assert few["loss"] == mean_target_loss(gpt2, tokenizer, task.validation[:2])


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ("test", "Task 'small' has no test examples. It has: train"),
        ("validation", "has no validation examples"),
        ("tests", "Unknown split 'tests'. Did you mean 'test'"),
    ],
)
def test_a_missing_split_is_said_to_be_missing(gpt2, tokenizer, split, sentence):
    with pytest.raises(gl.GumlabError, match=sentence):
        evaluate(gpt2, tokenizer, Task("small", "bleu", make_examples(3)), split)


def test_a_task_without_a_test_split_uses_validation_and_says_so(gpt2, tokenizer, task):
    without = Task("e2e", "bleu", task.train, task.validation)
    with pytest.warns(
        UserWarning, match="Task 'e2e' has no test split; this is validation"
    ) as said:
        got = evaluate(gpt2, tokenizer, without)
    assert got == evaluate(gpt2, tokenizer, task, "validation")
    assert said[0].filename == __file__


def test_nothing_to_generate_from_is_refused(gpt2, tokenizer):
    with pytest.raises(gl.GumlabError, match="no prompts to generate from"):
        generate(gpt2, tokenizer, [])


def test_an_unknown_metric_is_refused(tokenizer, examples):
    with pytest.raises(gl.GumlabError, match="bleu"):
        evaluate(tiny("gpt2"), tokenizer, Task("mine", "blue", test=examples))
