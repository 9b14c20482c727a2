"""What is learned and what is not: labels, truncation, padding, and the order of an epoch."""

import collections

import pytest
import torch
from helpers.models import CONTEXT, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from torch import nn

import gumlab as gl
from gumlab.evaluation import mean_target_loss, windows
from gumlab.tasks import Example, _tokens
from gumlab.tasks._tokens import MANY, READINGS, tokens_of
from gumlab.tasks.batches import (
    BLOCK,
    IGNORED,
    batches,
    collate,
    context_length,
    encode,
    shuffled,
    token_losses,
)


def test_only_the_target_and_the_end_of_text_are_labelled(gpt2, tokenizer):
    examples = [Example("w4 w5 w6", "w7 w8"), Example("w9", "w10")]
    batch = one_batch(gpt2, tokenizer, examples)
    assert batch["input_ids"].tolist()[0] == [4, 5, 6, 7, 8, 0]
    assert batch["input_ids"].tolist()[1][:3] == [9, 10, 0]
    ignored = IGNORED
    assert batch["labels"].tolist() == [[ignored] * 3 + [7, 8, 0], [ignored, 10, 0] + [ignored] * 3]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 3 + [0] * 3]


def test_a_beginning_of_text_token_stands_at_the_beginning_only():
    """Llama's tokenizer starts every text it is given with <bos>; a target is no new text."""
    rows = encode(word_tokenizer(bos=True), [Example("w4 w5", "w6")], CONTEXT)
    assert rows == [([2, 4, 5, 6, 0], 3)]


def test_long_prompts_lose_their_left_and_are_counted(tokenizer):
    long = Example(" ".join(f"w{4 + i}" for i in range(20)), "w50 w51")
    examples = [long, Example("w4", "w5"), long]
    with pytest.warns(UserWarning, match="2 of 3 prompts do not fit into the context of 10 tokens"):
        rows = encode(tokenizer, examples, 10)
    assert rows[0] == ([*range(17, 24), 50, 51, 0], 7)
    assert rows[1] == ([4, 5, 0], 1)
    assert encode(tokenizer, [long], 23) == [
        ([*range(4, 24), 50, 51, 0], 20)
    ]  # just fits, no warning


def test_a_target_that_cannot_fit_loses_its_end_and_is_counted(tokenizer):
    examples = [Example("w9 w8 w4", "w5 w6 w7"), Example("w4", "w5")]
    with pytest.warns(UserWarning, match="cut from the") as said:
        rows = encode(tokenizer, examples, 4)
    assert rows == [([4, 5, 6, 7], 1), ([4, 5, 0], 1)]
    assert [str(w.message) for w in said] == [
        "1 of 2 targets do not fit into the context of 4 tokens; they were cut from the right.",
        "1 of 2 prompts do not fit into the context of 4 tokens; they were cut from the left.",
    ]
    assert encode(tokenizer, examples[1:], 4) == rows[1:]  # and no warning


def test_truncation_is_said_once_a_run_not_once_a_batch(tokenizer):
    model = tiny("gpt2")
    examples = [Example(" ".join(["w5"] * (60 + i)), "w6 w7") for i in range(8)]  # 61 fit
    for run in (
        lambda: gl.train(model, tokenizer, examples, steps=9, batch_size=2, progress=False),
        lambda: gl.score(model, "wanda", tokenizer, examples, batch_size=2),
        lambda: gl.redundancy(model, tokenizer, examples, batch_size=2),
        lambda: mean_target_loss(model, tokenizer, examples, 2),
    ):
        with pytest.warns(UserWarning, match="6 of 8 prompts do not fit into the") as said:
            run()
        assert len(said) == 1


def text_of(count):
    """Running text of `count` tokens, three to an example; and its tokens."""
    ids = [4 + (i * i) % 60 for i in range(count)]
    parts = [ids[i : i + 3] for i in range(0, count, 3)]
    return [Example("", " ".join(f"w{i}" for i in part)) for part in parts], ids


@pytest.mark.parametrize(("count", "lengths"), [(25, [10, 10, 5]), (21, [10, 10]), (4, [4])])
def test_running_text_is_cut_into_blocks_of_the_context(count, lengths, tokenizer):
    examples, ids = text_of(count)
    rows = encode(tokenizer, examples, 10)
    assert [len(row) for row, _ in rows] == lengths
    assert [i for row, _ in rows for i in row] == ids[: sum(lengths)]  # nothing added, none lost
    labels = collate(rows)["labels"]
    assert (labels[:, 1:] != IGNORED).sum() == sum(lengths) - len(rows)


def test_blocks_of_running_text_have_a_limit_where_the_context_has_none(tokenizer):
    examples, _ = text_of(BLOCK + 5)
    assert [len(row) for row, _ in encode(tokenizer, examples, 10**6)] == [BLOCK, 5]


@pytest.mark.parametrize("stride", [1, 3, 5, 9])
@pytest.mark.parametrize("count", [2, 9, 10, 11, 37])
def test_windows_predict_every_token_but_the_first_once(count, stride):
    rows = windows(range(count), 10, stride)
    predicted = [t for ids, start in rows for t in ids[start:]]
    assert predicted == list(range(1, count))
    assert all(len(ids) <= 10 for ids, _ in rows)
    assert all(start >= 10 - stride for _, start in rows[1:])  # so many tokens before each


def test_no_examples_are_refused(gpt2, tokenizer):
    with pytest.raises(gl.GumlabError, match="no examples to work on; expected one or more"):
        encode(tokenizer, [], 10)
    with pytest.raises(gl.GumlabError, match="no examples"):
        gl.train(gpt2, tokenizer, [], steps=2, progress=False)
    with pytest.raises(gl.GumlabError, match="no examples"):
        gl.redundancy(gpt2, tokenizer, [])


def test_a_tokenizer_without_an_end_of_text_is_refused():
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(gl.GumlabError, match=r"no end-of-text token; set tokenizer\.eos_token"):
        encode(tokenizer, make_examples(1), 10)


def test_the_loss_does_not_depend_on_batch_size_or_padding(model, tokenizer, examples):
    losses = [mean_target_loss(model, tokenizer, examples, size) for size in (1, 5, 12)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    rows = encode(tokenizer, examples, CONTEXT)
    tight = collate(rows)
    wide = {
        k: nn.functional.pad(v, (0, 7), value=IGNORED if k == "labels" else 0)
        for k, v in tight.items()
    }
    sums = []
    for batch in (tight, wide):
        labels = batch.pop("labels")
        with torch.no_grad():
            sums.append(token_losses(model(**batch).logits, labels).sum(1))
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-4)


def test_token_losses_are_the_cross_entropy_of_the_next_token():
    torch.manual_seed(0)
    logits, labels = (
        torch.randn(2, 4, 5),
        torch.tensor([[IGNORED, IGNORED, 3, 1], [IGNORED, 2, 0, IGNORED]]),
    )
    losses = token_losses(logits, labels)
    assert losses.shape == (2, 3)
    for b, t in [(0, 1), (0, 2), (1, 0), (1, 1)]:
        assert losses[b, t].item() == pytest.approx(
            -logits[b, t].log_softmax(-1)[labels[b, t + 1]].item()
        )
    assert losses[0, 0] == losses[1, 2] == 0


def test_batches_hold_every_example_once_longest_first(gpt2, tokenizer, examples):
    seen = list(batches(gpt2, tokenizer, examples, 5))
    assert [len(b["input_ids"]) for b in seen] == [5, 5, 2]
    lengths = [int(n) for b in seen for n in b["attention_mask"].sum(1)]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(lengths) == sorted(len(ids) for ids, _ in encode(tokenizer, examples, CONTEXT))


def numbered(count):
    """Examples that can be told apart by their first token."""
    return [Example(f"w{4 + i}" + " w60" * (i % 5), "w61") for i in range(count)]


@pytest.mark.parametrize(("count", "size"), [(12, 4), (11, 4), (40, 2), (3, 8)])
def test_shuffled_shows_every_example_once_an_epoch(gpt2, tokenizer, count, size):
    per_epoch = -(-count // size)
    steps = 3 * per_epoch + 1
    seen = list(shuffled(gpt2, tokenizer, numbered(count), size, steps, seed=0))
    assert len(seen) == steps
    firsts = [b["input_ids"][:, 0].tolist() for b in seen]
    epochs = [
        [i for firsts_ in firsts[e * per_epoch : (e + 1) * per_epoch] for i in firsts_]
        for e in range(3)
    ]
    for epoch in epochs:
        assert collections.Counter(epoch) == collections.Counter(range(4, 4 + count))
    if count > size:
        assert not epochs[0] == epochs[1] == epochs[2]


def test_shuffled_follows_the_seed_alone(gpt2, tokenizer):
    def order(seed):
        torch.rand(seed + 1)  # the global generator must not matter
        found = shuffled(gpt2, tokenizer, numbered(20), 4, 9, seed)
        return [b["input_ids"][:, 0].tolist() for b in found]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_near_lengths_share_a_batch(gpt2, tokenizer):
    """Little is padding: sorted within a pool, 5 kinds of length in 40 examples of batches of 4."""
    batches_ = list(shuffled(gpt2, tokenizer, numbered(40), 4, 10, seed=0))
    padding = sum(int((b["attention_mask"] == 0).sum()) for b in batches_)
    assert padding == 0


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "opt", "phi3", "gptj"])
def test_context_length(name):
    assert context_length(tiny(name)) == CONTEXT


TEXT = [Example("", " ".join(f"w{4 + i % 60}" for i in range(40)))]


def test_running_text_is_trained_on_in_blocks_of_the_length_asked_for(gpt2, tokenizer):
    (batch,) = shuffled(gpt2, tokenizer, TEXT, size=5, steps=1, seed=0, block=8)
    assert batch["input_ids"].shape == (5, 8)
    assert sorted(batch["input_ids"].flatten().tolist()) == sorted(range(4, 44))
    (whole,) = shuffled(gpt2, tokenizer, TEXT, size=1, steps=1, seed=0)
    assert whole["input_ids"].shape == (1, 40)


@pytest.mark.parametrize(
    ("examples", "block", "said"),
    [
        (TEXT, CONTEXT + 1, f"longer than a block can be: the model takes {CONTEXT} tokens"),
        (TEXT, 1, "block must be a whole number, 2 or more"),
        (make_examples(3), 8, "cuts running text, and these examples have prompts"),
    ],
)
def test_a_block_that_cannot_be_is_refused(examples, block, said, gpt2, tokenizer):
    with pytest.raises(gl.GumlabError, match=said):
        next(shuffled(gpt2, tokenizer, examples, 2, 1, 0, block))


@pytest.fixture
def readings(monkeypatch):
    """How many texts a tokenizer of transformers was asked for, call by call."""
    kind = type(word_tokenizer())
    read, asked = kind.__call__, []

    def noted(self, texts, **how):
        asked.append(len(texts))
        return read(self, texts, **how)

    monkeypatch.setattr(kind, "__call__", noted)
    monkeypatch.setattr(_tokens, "_latest", {})
    return asked


def test_many_texts_are_read_once(readings):
    examples = make_examples(MANY)
    rows = encode(word_tokenizer(bos=True), examples, CONTEXT)
    assert readings.count(MANY) == 2  # prompts, and prompts with their targets
    assert encode(word_tokenizer(bos=True), list(examples), CONTEXT) == rows
    assert readings.count(MANY) == 2
    assert rows == [encode(word_tokenizer(bos=True), [e], CONTEXT)[0] for e in examples]


def test_what_was_read_is_a_copy(readings):
    texts = [example.prompt for example in make_examples(MANY)]
    before = tokens_of(word_tokenizer(), texts)
    for found in (before, tokens_of(word_tokenizer(), texts)):
        found[0].append(7)
    assert tokens_of(word_tokenizer(), texts)[0] == before[0][:-1]


@pytest.mark.parametrize("changed", ["a text", "bos", "added tokens", "special tokens in parts"])
def test_what_is_read_otherwise_is_read_again(changed, readings):
    texts = [example.prompt for example in make_examples(MANY)]
    special = changed == "special tokens in parts"
    texts[0] = f"{texts[0]} <eos>"
    before = tokens_of(word_tokenizer(), texts, special=True)
    other = word_tokenizer(bos=changed == "bos")
    if changed == "a text":
        texts[-1] += " w9"
    if changed == "added tokens":
        other.add_tokens(texts[1])
    other.split_special_tokens = special
    after = tokens_of(other, texts, special=True)
    assert readings.count(MANY) == 2
    assert after != before
    assert after == [tokens_of(other, [text], special=True)[0] for text in texts]


def test_a_tokenizer_of_ones_own_is_asked_each_time():
    class Own:
        def __init__(self, first):
            self.backend_tokenizer = word_tokenizer().backend_tokenizer
            self.first = first

        def __call__(self, texts, **how):
            return {"input_ids": [[self.first, 5] for _ in texts]}

    texts = ["w4"] * MANY
    assert tokens_of(Own(1), texts) != tokens_of(Own(2), texts)


def test_few_readings_are_kept_and_none_that_is_very_long(readings, monkeypatch):
    tokenizer = word_tokenizer()
    for number in range(READINGS + 1):
        tokens_of(tokenizer, [f"w{4 + number}"] * MANY)
    assert len(_tokens._latest) == READINGS
    tokens_of(tokenizer, ["w5"] * MANY)  # the second, which is still there
    assert readings.count(MANY) == READINGS + 1
    tokens_of(tokenizer, ["w4"] * MANY)  # the first
    assert readings.count(MANY) == READINGS + 2
    monkeypatch.setattr(_tokens, "LONGEST", MANY)
    kept = dict(_tokens._latest)
    tokens_of(tokenizer, ["w4 w5"] * MANY)
    assert _tokens._latest == kept
