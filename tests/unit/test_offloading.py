"""Models whose weights accelerate keeps on the CPU or on disk: as the same model here whole."""

from __future__ import annotations

import contextlib
import copy
import gc
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate.hooks import remove_hook_from_submodules
from helpers.models import D, N, logits_of, random_masks, tiny
from helpers.texts import one_batch
from torch import nn
from transformers import AutoModelForCausalLM

import gumlab as gl
from gumlab.collecting import block_name
from gumlab.feedforward import neurons
from gumlab.offloading import device_of, held, is_offloaded
from gumlab.scoring import SCORES

ASSETS = Path(gl.__file__).parent / "assets"
every_place = pytest.mark.parametrize("where", ["cpu", "disk", "both"])
# every storage of a block, and every place
CASES = (
    ("gpt2", "cpu"),
    ("gpt2", "disk"),
    ("gpt2", "both"),
    ("opt", "disk"),
    ("llama", "both"),
    ("phi3", "disk"),
    ("gemma3_text", "cpu"),
)
every_case = pytest.mark.parametrize(("model", "where"), CASES, indirect=["model"])


def offloaded(model: nn.Module, where: str, folder: Path) -> nn.Module:
    """A copy of a model that runs on the CPU, with its weights on the CPU, on disk or on both."""
    away = copy.deepcopy(model)
    if where == "cpu":
        return accelerate.cpu_offload(away, "cpu")
    if where == "disk":
        return accelerate.disk_offload(away, folder, "cpu")
    first = block_name(neurons(away)[0])
    modules = {name.rpartition(".")[0] for name in away.state_dict()}
    places = {name: "cpu" if name.startswith(first) else "disk" for name in modules}
    # as beside a GPU: a main device that is not the word "cpu" has what is on the CPU offloaded too
    return accelerate.dispatch_model(
        away, places, main_device=torch.device("cpu"), offload_dir=folder
    )


def brought_back(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model that is offloaded or not, which then has no hooks any more."""
    with held(model):
        return {name: value.clone() for name, value in model.state_dict().items()}


def are_equal(ours: nn.Module, theirs: nn.Module) -> bool:
    states = brought_back(ours), brought_back(theirs)
    same = states[0].keys() == states[1].keys()
    return same and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def here(model: nn.Module) -> set[str]:
    """The layers of which some weights are in memory."""
    return {
        block_name(layer)
        for layer in neurons(model)
        for parameter in model.get_submodule(block_name(layer)).parameters()
        if parameter.device.type != "meta"
    }


def usage(layer, statistics):
    """A criterion of one's own, of weights and gradients."""
    return statistics.slope.abs() + layer.outgoing().norm(dim=1)


@every_case
def test_every_score_is_that_of_the_whole_model(model, where, tokenizer, examples, tmp_path):
    away = offloaded(model, where, tmp_path)
    for method in (*SCORES, usage):
        want = gl.score(model, method, tokenizer, examples, batch_size=5)
        got = gl.score(away, method, tokenizer, examples, batch_size=5)
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        for ours, theirs in zip(gl.select(got, 0.5), gl.select(want, 0.5), strict=True):
            assert torch.equal(ours, theirs)
    assert here(away) == set()


@every_place
@pytest.mark.parametrize("currency", ["loss", "loss_scalar"])
def test_errors_cost_what_they_cost_the_whole_model(
    gpt2, where, currency, tokenizer, examples, tmp_path
):
    options = {"currency": currency, "batch_size": 5}
    want = gl.score(gpt2, "obs", tokenizer, examples, **options)
    away = offloaded(gpt2, where, tmp_path)
    got = gl.score(away, "obs", tokenizer, examples, **options)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


@every_case
@pytest.mark.parametrize("in_place", [True, False])
def test_the_recommended_recipe_leaves_the_same_model(
    model, where, in_place, tokenizer, task, tmp_path
):
    away = offloaded(model, where, tmp_path)
    want = gl.prune(model, "recommended", tokenizer, task, keep=0.5)
    small = gl.prune(away, "recommended", tokenizer, task, keep=0.5, in_place=in_place)
    assert (small is away) == in_place
    assert is_offloaded(small)
    assert here(small) == set()
    ours, theirs = (gl.evaluate(one, tokenizer, task, generated=2) for one in (small, want))
    assert ours == pytest.approx(theirs)
    assert are_equal(small, want)
    if not in_place:
        assert are_equal(away, model)
    remove_hook_from_submodules(small)  # accelerate's own way back
    batch = one_batch(want, tokenizer, task.test)
    assert torch.equal(logits_of(small, batch), logits_of(want, batch))


@every_place
@pytest.mark.parametrize(
    ("options", "in_place"),
    [
        ({}, True),
        ({}, False),
        ({"refit": True}, True),
        ({"refit": True, "sequential": False}, False),
        ({"refit": "bias"}, True),
    ],
)
def test_masks_cut_the_same_weights(gpt2, where, in_place, options, tokenizer, task, tmp_path):
    masks = random_masks(gpt2, equal=False)
    away = offloaded(gpt2, where, tmp_path)
    want = gl.shrink(gpt2, masks, tokenizer, task, **options)
    small = gl.shrink(away, masks, tokenizer, task, in_place=in_place, **options)
    assert are_equal(small, want)
    again = [torch.arange(layer.width) > 2 for layer in neurons(want)]
    assert are_equal(gl.shrink(small, again, in_place=True), gl.shrink(want, again))


@every_place
def test_only_the_layer_that_runs_is_in_memory(gpt2, where, tokenizer, task, tmp_path):
    away = offloaded(gpt2, where, tmp_path)
    seen = []
    for layer in neurons(away):
        layer.proj.register_forward_pre_hook(lambda *_: seen.append(here(away)))
    gl.score(away, "taylor", tokenizer, task)  # forward, and back
    gl.prune(away, "recommended", tokenizer, task, keep=0.5, in_place=True)
    assert len(seen) > 10
    assert all(len(layers) <= 1 for layers in seen)


@every_place
def test_what_an_error_cuts_short_leaves_no_layer_in_memory(gpt2, where, tokenizer, task, tmp_path):
    away = offloaded(gpt2, where, tmp_path)

    def failing(layer, statistics):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as told:
        gl.score(away, failing, tokenizer, task)
    assert here(away) == set()
    assert are_equal(away, gpt2)
    del told


@pytest.mark.parametrize(
    ("name", "where", "equal"),
    [
        ("gpt2", "cpu", True),
        ("gpt2", "disk", False),
        ("llama", "disk", True),
        ("llama", "both", False),
        ("gpt2", "both", True),
    ],
)
def test_what_is_saved_is_the_whole_models(name, where, equal, tokenizer, task, tmp_path):
    model = tiny(name, tie_word_embeddings=True)
    away = offloaded(model, where, tmp_path / "away")
    masks = random_masks(model, equal)
    want = gl.shrink(model, masks)
    small = gl.shrink(away, masks, in_place=True)
    folder = gl.save(small, tokenizer, tmp_path / "small")
    whole = gl.save(want, tokenizer, tmp_path / "whole")
    for ending in ("config.json", "generation_config.json"):
        assert (folder / ending).read_text() == (whole / ending).read_text()
    assert len(list(folder.glob("*.safetensors"))) == 1 + len(masks)  # a layer each
    batch = one_batch(want, tokenizer, task.test)
    loads = [lambda: gl.load(folder, device="cpu")[0]]
    if equal:
        loads.append(lambda: AutoModelForCausalLM.from_pretrained(folder))
    for load in loads:
        loaded = load()
        assert are_equal(loaded, want)
        assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
        assert torch.equal(logits_of(loaded, batch), logits_of(want, batch))


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-gpt-neo", "tiny-llama"])
def test_a_checkpoint_on_disk_is_pruned_and_saved_and_stays(name, tmp_path):
    whole, tokenizer = gl.load(name, device="cpu")
    modules = {key.rpartition(".")[0] for key in whole.state_dict()}
    first, *_, last = neurons(whole)
    away_parts = (f"{block_name(first)}.", f"{last.name}.")  # a layer, and a block of another

    def opened(place: str, **options) -> nn.Module:
        places = {key: place if key.startswith(away_parts) else "cpu" for key in modules}
        return AutoModelForCausalLM.from_pretrained(
            ASSETS / name, device_map=places, dtype=torch.float32, **options
        )

    before = (ASSETS / name / "model.safetensors").read_bytes()
    texts = gl.load_task("restaurants").train[:6]
    away_folder = tmp_path / "offloaded"
    away = opened("disk", offload_folder=away_folder)
    assert [is_offloaded(one) for one in (away, opened("cpu"))] == [True, False]
    want = gl.prune(whole, "recommended", tokenizer, texts, keep=0.5)
    small = gl.prune(away, "recommended", tokenizer, texts, keep=0.5, in_place=True)
    saved, _ = gl.load(gl.save(small, tokenizer, tmp_path / "small"), device="cpu")
    assert are_equal(saved, want)
    assert list(away_folder.iterdir())
    del small, away
    gc.collect()
    assert list(away_folder.iterdir()) == []  # what stays is of use to that model alone
    assert (ASSETS / name / "model.safetensors").read_bytes() == before
    without = opened("disk")
    with pytest.raises(gl.GumlabError, match=r"mlp are read from .*offload_folder='offloaded'"):
        gl.prune(without, "magnitude", keep=0.5, refit=False)


def test_models_of_one_offload_folder_are_cut_apart(gpt2, tmp_path):
    first, second, third = (offloaded(gpt2, "disk", tmp_path) for _ in range(3))
    masks = [random_masks(gpt2, seed=seed) for seed in (1, 2)]
    gl.shrink(first, masks[0], in_place=True)
    gl.shrink(second, masks[1], in_place=True)
    for small, mask in zip((first, second), masks, strict=True):
        assert are_equal(small, gl.shrink(gpt2, mask))
    assert are_equal(third, gpt2)
    of_first = gl.shrink(first, [torch.arange(11) > 4] * 2)  # reads files of the first
    want = brought_back(of_first)
    del first, small
    gc.collect()
    assert all(torch.equal(value, want[name]) for name, value in brought_back(of_first).items())


@every_place
def test_gates_and_damage_are_those_of_the_whole_model(gpt2, where, tokenizer, task, tmp_path):
    away = offloaded(gpt2, where, tmp_path)
    masks = random_masks(gpt2)
    batch = one_batch(away, tokenizer, task.test)
    assert batch["input_ids"].device == device_of(away) == torch.device("cpu")
    with gl.gate(away, masks):
        gated = logits_of(away, batch)
    torch.testing.assert_close(logits_of(gl.shrink(away, masks), batch), gated)
    scores = gl.score(gpt2, "magnitude")
    curves = [
        gl.damage_curves(one, scores, tokenizer, task, keeps=[0.5]).damage for one in (away, gpt2)
    ]
    assert curves[0] == [pytest.approx(damage) for damage in curves[1]]
    assert are_equal(away, gpt2)


NEEDS_ALL = {
    "A Pruner": lambda away, tokenizer, task, folder: gl.Pruner(away, "random", 0.5, 4),
    "Training": lambda away, tokenizer, task, folder: gl.train(away, tokenizer, task, steps=2),
    "A look at all layers at once": lambda away, tokenizer, task, folder: gl.redundancy(
        away, tokenizer, task
    ),
    "Timing": lambda away, tokenizer, task, folder: gl.measure(away),
    "An export": lambda away, tokenizer, task, folder: gl.export(
        away, tokenizer, folder / "model.gguf"
    ),
    "Padding": lambda away, tokenizer, task, folder: gl.save(
        gl.shrink(away, random_masks(away, equal=False)), tokenizer, folder / "model", pad=True
    ),
}


@pytest.mark.parametrize("what", NEEDS_ALL)
def test_what_needs_the_whole_model_says_so_before_the_work(what, gpt2, tokenizer, task, tmp_path):
    away = offloaded(gpt2, "cpu", tmp_path)
    with pytest.raises(
        gl.GumlabError, match=rf"{what} needs the whole model.*transformer\.wte are"
    ):
        NEEDS_ALL[what](away, tokenizer, task, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert gl.measure(away, latency=False) == gl.measure(gpt2, latency=False)


def test_a_save_does_not_replace_the_files_that_a_model_is_read_from(gpt2, tokenizer, tmp_path):
    folder = gl.save(gpt2, tokenizer, tmp_path / "model")
    away = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "disk"})
    with pytest.raises(gl.GumlabError, match=r"model holds weights .*another folder"):
        gl.save(away, tokenizer, folder)
    assert are_equal(away, gpt2)
    loaded, _ = gl.load(gl.save(away, tokenizer, tmp_path / "other"), device="cpu")
    assert are_equal(loaded, gpt2)


def test_weights_that_are_gone_are_named(gpt2, tmp_path):
    away = offloaded(gpt2, "disk", tmp_path)
    next(tmp_path.glob("*c_fc.weight.dat")).unlink()
    with pytest.raises(gl.GumlabError, match=r"Offloaded weights are gone: .*c_fc\.weight\.dat"):
        gl.score(away, "magnitude")


def test_layers_that_come_only_all_at_once_are_refused(gpt2):
    away = accelerate.cpu_offload(copy.deepcopy(gpt2), "cpu", preload_module_classes=["GPT2Model"])
    with pytest.raises(gl.GumlabError, match=r"transformer are offloaded all as one"):
        gl.neurons(away)


def test_shapes_alone_are_no_offloaded_model(gpt2):
    with pytest.raises(gl.GumlabError, match="meta device"):
        gl.score(copy.deepcopy(gpt2).to("meta"), "magnitude")


def test_a_model_that_a_device_map_puts_whole_on_the_cpu_is_no_offloaded_one(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(ASSETS / "tiny-gpt2", device_map="cpu")
    assert not is_offloaded(model)
    small = gl.prune(model, "magnitude", keep=0.5, refit=False)
    assert sum(layer.width for layer in neurons(small)) == 1024


def test_held_weights_are_here_for_a_while(gpt2, tmp_path):
    away = offloaded(gpt2, "disk", tmp_path)
    block = away.transformer.h[0]
    assert device_of(block) == torch.device("cpu")
    with held(block), contextlib.suppress(KeyError), held(block):
        assert block.mlp.c_fc.weight.shape == (D, N)
        assert block.mlp.c_fc.weight.device.type == "cpu"
        raise KeyError
    assert block.mlp.c_fc.weight.device.type == "meta"
