"""Make the built-in tokenizer and base models again: `make assets`, or name some of them.

Each model is trained from scratch on the generated tasks, target tokens only, on this machine's
CPU, and saved in half precision. What it cost and how good it is goes to results/bases/;
tools/update_readme.py makes the table in results/README.md of it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import gumlab as gl
from gumlab.io.loading import ASSETS
from gumlab.tasks import BUILT_IN as TASKS
from gumlab.tasks import Task

ROOT = Path(__file__).parents[1]
VOCABULARY, CONTEXT, SEED = 1024, 256, 0
END, PAD = "<|endoftext|>", "<|pad|>"
STEPS = {
    "tiny-gpt-neo": 1200,
    "tiny-gpt2": 1200,
    "tiny-llama": 1200,
    "tiny-twins": 40,
    "tiny-wide": 1200,
}
TWIN_NOISE = 0.02  # of a neuron's own incoming weights' spread


def make_tokenizer(tasks: list[Task]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 1,024 tokens; digits stay single: numbers are copied, not guessed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{e.prompt} {e.target}" for task in tasks for e in task.train)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        bos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
    )


def fresh_model(name: str) -> PreTrainedModel:
    """A randomly initialised model of about a million parameters."""
    torch.manual_seed(SEED)
    common = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    act = "gelu_pytorch_tanh"  # GPT's gelu_new, computed in one kernel
    dropout = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    gpt2 = {"n_positions": CONTEXT, "n_head": 4, **dropout}
    configs = {
        "tiny-gpt2": lambda: GPT2Config(
            n_embd=128, n_layer=4, n_inner=512, activation_function=act, **gpt2, **common
        ),
        "tiny-gpt-neo": lambda: GPTNeoConfig(
            max_position_embeddings=CONTEXT,
            hidden_size=128,
            num_layers=4,
            num_heads=4,
            intermediate_size=512,
            attention_types=[[["global", "local"], 2]],
            window_size=CONTEXT,
            activation_function=act,
            **common,
        ),
        "tiny-llama": lambda: LlamaConfig(
            max_position_embeddings=CONTEXT,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            tie_word_embeddings=True,
            **common,
        ),
        "tiny-wide": lambda: GPT2Config(
            n_embd=40, n_layer=2, n_inner=2048, activation_function="relu", **gpt2, **common
        ),
    }
    return AutoModelForCausalLM.from_config(configs[name]())


def plant_twins(model: PreTrainedModel) -> tuple[PreTrainedModel, list[list[list[int]]]]:
    """Duplicate a random half of each layer's neurons without changing the function.

    A copy takes its original's incoming weights with a little noise; the outgoing weights are
    split between the two in random shares. Returns the model and each layer's [original, copy].
    """
    from gumlab.removal import with_neurons

    generator = torch.Generator().manual_seed(SEED)
    halves = [
        torch.randperm(n.width, generator=generator)[: n.width // 2] for n in gl.neurons(model)
    ]
    halves = [h.sort().values for h in halves]
    layers = gl.neurons(model)
    wide = with_neurons(
        model, [torch.cat([torch.arange(n.width), h]) for n, h in zip(layers, halves, strict=True)]
    )
    pairs = []
    for old, new, half in zip(layers, gl.neurons(wide), halves, strict=True):
        copies = torch.arange(old.width, new.width)
        share = 0.25 + 0.5 * torch.rand(len(half), 1, generator=generator)
        with torch.no_grad():
            rows = new.incoming()[copies]
            noise = (
                torch.randn(rows.shape, generator=generator)
                * rows.std(1, keepdim=True)
                * TWIN_NOISE
            )
            new.incoming()[copies] += noise  # a view of the weight
            new.outgoing()[half] *= share
            new.outgoing()[copies] *= 1 - share
        pairs.append([[int(a), int(b)] for a, b in zip(half, copies, strict=True)])
    return wide, pairs


def make(name: str, tasks: dict[str, Task], tokenizer: PreTrainedTokenizerFast) -> float:
    """Train and save one base; returns the CPU seconds it took."""
    began, pairs = time.process_time(), None
    mixed = [e for t in tasks.values() for e in t.train]
    random.Random(SEED).shuffle(mixed)
    if name == "tiny-twins":
        model, _ = gl.load("tiny-gpt2")
        model, pairs = plant_twins(model)
        gl.train(model, tokenizer, mixed, steps=STEPS[name], batch_size=32, lr=2e-4, seed=SEED)
    else:
        data = tasks["tables"].train if name == "tiny-wide" else mixed
        model = fresh_model(name)
        rate = 3e-3 if name == "tiny-wide" else 2e-3
        gl.train(model, tokenizer, data, steps=STEPS[name], batch_size=32, lr=rate, seed=SEED)
    gl.save(model.half(), tokenizer, ASSETS / name)
    if pairs is not None:
        (ASSETS / name / "twins.json").write_text(json.dumps(pairs) + "\n", encoding="utf-8")
    return time.process_time() - began


def describe(name: str, seconds: float, tasks: dict[str, Task]) -> dict[str, object]:
    """Test scores, uniqueness and cost of one saved base."""
    from gumlab.evaluation import MAIN_METRIC

    model, tokenizer = gl.load(name, device="cpu")
    row: dict[str, object] = {
        "model": name,
        "parameters": gl.measure(model, latency=False)["parameters"],
    }
    for task in tasks.values():
        if name == "tiny-wide" and task.name != "tables":
            continue
        result = gl.evaluate(model, tokenizer, task)
        metric = MAIN_METRIC[task.metric]
        row[f"{task.name} {metric}"] = round(result[metric], 1)
        row[f"{task.name} loss"] = round(result["loss"], 3)
    own = tasks["tables"] if name == "tiny-wide" else replace_train(tasks)
    row["uniqueness"] = round(gl.redundancy(model, tokenizer, own, limit=600).uniqueness, 3)
    row["steps"], row["CPU seconds"] = STEPS[name], round(seconds)
    return row


def replace_train(tasks: dict[str, Task]) -> Task:
    """A task whose training split is 200 examples of each."""
    mixed = [e for t in tasks.values() for e in t.train[:200]]
    return replace(next(iter(tasks.values())), train=mixed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(STEPS), choices=[*STEPS, []])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tasks = {name: gl.load_task(name) for name in TASKS}
    tokenizer = make_tokenizer(list(tasks.values()))
    for name in args.names:
        row = describe(name, make(name, tasks, tokenizer), tasks)
        print(json.dumps(row), flush=True)
        path = ROOT / "results" / "bases" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
