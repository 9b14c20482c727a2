"""A pruned model in EleutherAI's lm-evaluation-harness: the loss of `gl.evaluate`."""

import json
import os
from pathlib import Path

import pytest
import torch
from helpers.children import alone

import gumlab as gl

EXAMPLES = 12
MODELS = ("tiny-gpt2", "tiny-llama")
# a task in the harness's own format: what is scored is the target, after a space, and its end
TASK = """
task: own_restaurants
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{' ' + target + end}}}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
"""


def pruned(name):
    """A model in memory with layers of unequal widths, and its tokenizer."""
    model, tokenizer = gl.load(name, device="cpu")
    masks = gl.select(gl.score(model, "magnitude"), keep=0.5, scope="global")
    small = gl.shrink(model, masks)
    assert len({layer.width for layer in gl.neurons(small)}) > 1
    return small, tokenizer


def harness(folder):
    """What the harness says of each model, in the folder of its name."""
    os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "cache")
    return {name: harness_of(name, str(Path(folder) / name)) for name in MODELS}


def harness_of(name, folder):
    """What it says of a pruned model: the log-likelihood of each target, perplexity."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    small, tokenizer = pruned(name)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=small, tokenizer=tokenizer, batch_size=4),
        tasks=["own_restaurants"],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    scores = [sample["resps"][0][0] for sample in found["samples"]["own_restaurants"]]
    likelihoods = [score[0] if isinstance(score, list | tuple) else score for score in scores]
    return [float(value) for value in likelihoods], found["results"]["own_restaurants"]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the harness says of each model; its imports alone take seconds, so in one process."""
    pytest.importorskip("lm_eval", reason='needs the harness: pip install "gumlab[eval]"')
    folder = tmp_path_factory.mktemp("harness")
    for name in MODELS:
        (folder / name).mkdir()
        rows = folder / name / "rows.jsonl"
        end = gl.load(name, device="cpu")[1].eos_token
        lines = [
            json.dumps({"prompt": e.prompt, "target": e.target, "end": end})
            for e in gl.load_task("restaurants").test[:EXAMPLES]
        ]
        rows.write_text("\n".join(lines), encoding="utf-8")
        task = TASK.format(rows=json.dumps(str(rows)))
        (folder / name / "own.yaml").write_text(task, encoding="utf-8")
    return alone("test_harness", "harness", folder)


@pytest.mark.parametrize("name", MODELS)
def test_the_harness_and_evaluate_agree_on_the_loss(name, said):
    task = gl.load_task("restaurants")
    examples = task.test[:EXAMPLES]
    small, tokenizer = pruned(name)
    likelihoods, results = said[name]

    assert len(likelihoods) == EXAMPLES
    tokens = 0
    for example, likelihood in zip(examples, likelihoods, strict=True):
        prompt = tokenizer(example.prompt)["input_ids"]
        whole = tokenizer(f"{example.prompt} {example.target}{tokenizer.eos_token}")["input_ids"]
        with torch.no_grad():
            chances = small(torch.tensor([whole])).logits[0].log_softmax(-1)
        by_hand = sum(chances[i - 1, whole[i]].item() for i in range(len(prompt), len(whole)))
        assert likelihood == pytest.approx(by_hand, rel=1e-4)
        tokens += len(whole) - len(prompt)
    scores = gl.evaluate(small, tokenizer, task, limit=EXAMPLES, generated=0)
    assert -sum(likelihoods) / tokens == pytest.approx(scores["loss"], rel=1e-4)
    assert results["perplexity,none"] > 1
