"""Training in two processes keeps the same neurons in both: those of one process.

With a Trainer, and with a hand-written loop under accelerate. Run by torchrun, this file is the
process: it trains each case and writes what it kept.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers.children import environment
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.tasks.batches import collate, encode, token_losses

STEPS = 14
CASES = {
    "movement": ("movement", {}),
    "movement-gate, by hand": ("movement", {"gradient": "gate"}),
    "movement-gate": ("movement", {"gradient": "gate"}),
    "gum": ("gum", {"gram_every": 3, "gram_tokens": 1.0, "lambda_gum": 20.0}),
    "gum-gate": ("gum", {"gram_every": 3, "gradient": "gate"}),
    "twin_filter": ("magnitude", {"gram_every": 3, "twin_filter": 0.7}),
    "obs": ("obs", {"gram_every": 3, "gram_tokens": 1.0}),
}


def trained(case, folder, batch):
    """(masks, scores) after a run that goes through the examples in their order."""
    model = tiny("gpt2")
    method, options = CASES[case]
    pruner = gl.Pruner(model, method, 0.4, STEPS, **options)
    rows = encode(word_tokenizer(), make_examples(4 * STEPS), 64)
    (by_hand if "hand" in case else by_trainer)(model, pruner, rows, folder, batch)
    scores = torch.cat([score.detach() for score in pruner.scores])
    return torch.cat(pruner.masks).tolist(), scores.tolist()


def by_hand(model, pruner, rows, folder, batch):
    """The loop of gumlab's README, with accelerate's Accelerator around it."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    data = torch.utils.data.DataLoader(rows, batch, collate_fn=collate)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, adam, data = accelerator.prepare(model.train(), adam, data)
    for inputs in data:
        labels = inputs.pop("labels")
        total = token_losses(model(**inputs).logits, labels).sum()
        accelerator.backward(accelerator.num_processes * total / 40)  # a mean weighs ranks alike
        pruner.step()
        adam.step()
        adam.zero_grad()


def by_trainer(model, pruner, rows, folder, batch):
    import transformers

    settings = {
        "max_steps": STEPS, "per_device_train_batch_size": batch, "learning_rate": 1e-2,
        "train_sampling_strategy": "sequential", "remove_unused_columns": False, "use_cpu": True,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "dataloader_pin_memory": False, "ddp_find_unused_parameters": False,
    }  # fmt: skip
    transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder), **settings),
        train_dataset=rows,
        data_collator=collate,
        callbacks=[gl.PruningCallback(pruner)],
    ).train()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes kept, with half of every batch each: [{case: (masks, scores)}]."""
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, __file__, str(folder)], capture_output=True, text=True, timeout=300,
        env=environment(OMP_NUM_THREADS="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_keep_what_one_keeps(case, ranks, tmp_path):
    """Gram sums weigh ranks alike whatever their tokens, so scores from them only come near."""
    (masks, scores), (other_masks, other_scores) = (rank[case] for rank in ranks)
    assert masks == other_masks
    assert scores == other_scores
    assert sum(masks) == round(0.4 * len(masks))
    one_masks, one_scores = trained(case, tmp_path, 4)
    if CASES[case][0] == "movement":
        assert masks == one_masks
        assert scores == pytest.approx(one_scores, rel=1e-2, abs=1e-4)
    agree = sum(a == b for a, b in zip(masks, one_masks, strict=True))
    assert agree >= 0.9 * len(masks)


def main(folder):
    warnings.simplefilter("ignore")
    found = {case: trained(case, folder, 2) for case in CASES}
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
