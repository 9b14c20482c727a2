"""Save and load: the same logits here and in plain transformers, and sentences for the rest."""

import json
import os
import shutil

import pytest
import torch
import transformers
from helpers.models import N, every_architecture, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from safetensors.torch import load_file, save_file

import gumlab as gl
from gumlab.feedforward import neurons, width_field
from gumlab.io.record import RECORD


def plain(folder):
    """What someone without gumlab would write."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@every_architecture
@pytest.mark.parametrize("equal", [True, False])
def test_save_and_load_give_the_same_logits(model, equal, tokenizer, examples, tmp_path):
    small = gl.shrink(model, random_masks(model, equal))
    batch = one_batch(small, tokenizer, examples)
    folder = gl.save(small, tokenizer, tmp_path / "small")
    loaded, its_tokenizer = gl.load(folder, device="cpu")
    assert torch.equal(logits_of(loaded, batch), logits_of(small, batch))
    assert [layer.width for layer in neurons(loaded)] == ([11, 11] if equal else [7, 11])
    assert not loaded.training
    assert loaded.state_dict().keys() == small.state_dict().keys()
    text = "w4 w9 w60"
    assert its_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert its_tokenizer.pad_token_id == tokenizer.pad_token_id


@every_architecture
def test_equal_widths_load_in_plain_transformers(model, tokenizer, examples, tmp_path):
    small = gl.shrink(model, random_masks(model))
    batch = one_batch(small, tokenizer, examples)
    folder = gl.save(small, tokenizer, tmp_path / "small")
    assert torch.equal(logits_of(plain(folder), batch), logits_of(small, batch))
    assert "per_layer_config" not in json.loads((folder / "config.json").read_text())


@every_architecture
def test_padded_widths_load_in_plain_transformers(model, tokenizer, examples, tmp_path):
    small = gl.shrink(model, random_masks(model, equal=False))
    batch = one_batch(small, tokenizer, examples)
    folder = gl.save(small, tokenizer, tmp_path / "padded", pad=True)
    assert [layer.width for layer in neurons(small)] == [7, 11]
    padded = plain(folder)
    assert [layer.width for layer in neurons(padded)] == [11, 11]
    torch.testing.assert_close(
        logits_of(padded, batch), logits_of(small, batch), rtol=1e-5, atol=1e-5
    )
    assert not neurons(padded)[0].incoming()[7:].any()
    ours, _ = gl.load(folder, device="cpu")
    assert torch.equal(logits_of(ours, batch), logits_of(padded, batch))


@every_architecture
def test_unequal_widths_are_recorded_layer_by_layer(model, tokenizer, tmp_path):
    small = gl.shrink(model, random_masks(model, equal=False))
    folder = gl.save(small, tokenizer, tmp_path / "small")
    field = width_field(model)
    config = json.loads((folder / "config.json").read_text())
    assert config["per_layer_config"] == {"0": {field: 7}, "1": {field: 11}}
    assert config[field] == N


def test_a_gated_model_is_not_saved_and_keeps_its_gates(gpt2, tokenizer, tmp_path):
    gl.gate(gpt2, random_masks(gpt2))
    batch = one_batch(gpt2, tokenizer, make_examples(4))
    before = logits_of(gpt2, batch)
    with pytest.raises(gl.GumlabError, match="Gates are on"):
        gl.save(gpt2, tokenizer, tmp_path / "gated")
    assert torch.equal(logits_of(gpt2, batch), before)


def test_dtype_and_device_are_as_asked(gpt2, tokenizer, tmp_path):
    half = gl.shrink(gpt2, random_masks(gpt2, equal=False)).half()
    folder = gl.save(half, tokenizer, tmp_path / "half")
    assert load_file(folder / "model.safetensors")["transformer.wpe.weight"].dtype == torch.float16
    for dtype in (torch.float32, torch.bfloat16):
        loaded, _ = gl.load(folder, device="cpu", dtype=dtype)
        assert {p.dtype for p in loaded.parameters()} == {dtype}


def test_the_card_lists_widths_notes_and_how_to_load(gpt2, tokenizer, tmp_path):
    small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
    card = (
        gl.save(small, tokenizer, tmp_path / "my", notes={"BLEU": 31.5}) / "README.md"
    ).read_text()
    assert "7, 11" in card
    assert "| BLEU | 31.5 |" in card
    assert 'gumlab.load("my")' in card
    card = (gl.save(small, tokenizer, tmp_path / "my", pad=True) / "README.md").read_text()
    assert "zero-padded to 11" in card
    assert 'AutoModelForCausalLM.from_pretrained("my")' in card
    assert "BLEU" not in card


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("there", [True, False])
def test_a_save_that_fails_half_way_changes_nothing(gpt2, tmp_path, monkeypatch, failure, there):
    tokenizer, folder = word_tokenizer(), tmp_path / "model"
    if there:
        gl.save(tiny("gpt2", seed=9), tokenizer, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()} if there else {}

    def fail(*args, **kwargs):
        raise failure("killed")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", fail)
    said = failure if failure is KeyboardInterrupt else gl.GumlabError
    with pytest.raises(said, match="killed"):
        gl.save(gpt2, tokenizer, folder)
    assert names(tmp_path) == (["model"] if there else [])
    assert (
        {p.name: p.read_bytes() for p in folder.iterdir()} == before
        if there
        else not folder.exists()
    )


def test_saving_again_replaces_the_whole_folder(gpt2, tokenizer, tmp_path):
    folder = gl.save(gpt2, tokenizer, tmp_path / "model")
    (folder / "old-shard.safetensors").write_bytes(b"old")
    small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
    gl.save(small, tokenizer, folder)
    assert names(tmp_path) == ["model"]
    assert "old-shard.safetensors" not in names(folder)
    assert [layer.width for layer in neurons(gl.load(folder, device="cpu")[0])] == [7, 11]


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(gpt2, tokenizer, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(
        gl.GumlabError, match="holds files that are not a checkpoint; choose another folder"
    ):
        gl.save(gpt2, tokenizer, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    assert names(tmp_path) == ["thesis"]
    (tmp_path / "file").write_text("a file")
    with pytest.raises(gl.GumlabError):
        gl.save(gpt2, tokenizer, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a file"
    (tmp_path / "empty").mkdir()
    gl.save(gpt2, tokenizer, tmp_path / "empty")


@pytest.fixture(params=[True, False], ids=["equal", "unequal"])
def folder(request, gpt2, tokenizer, tmp_path):
    """A saved shrunk gpt2, of equal and of unequal widths."""
    return gl.save(
        gl.shrink(gpt2, random_masks(gpt2, request.param)), tokenizer, tmp_path / "model"
    )


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])


def garbage(folder):
    (folder / "model.safetensors").write_bytes(b"not a safetensors file at all")


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def foreign(folder):
    other = folder.parent / "other"
    tiny("llama").save_pretrained(other)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")


def missing_tensor(folder):
    state = load_file(folder / "model.safetensors")
    del state["transformer.h.1.mlp.c_fc.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def wrong_widths(folder):
    config = json.loads((folder / "config.json").read_text())
    config["per_layer_config"] = {"0": {"n_inner": 20}}
    (folder / "config.json").write_text(json.dumps(config))


def remove(name):
    def removed(folder):
        (folder / name).unlink()

    return removed


def write(name, content):
    def written(folder):
        (folder / name).write_bytes(content)

    return written


def unknown_type(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt99"}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncate, "cannot be loaded.*damaged"),
        (garbage, "cannot be loaded.*damaged"),
        (pickled, r"holds no safetensors weights \(found:.*pytorch_model.bin.*never unpickles"),
        (foreign, "model"),
        (missing_tensor, "model"),
        (wrong_widths, "layer 0 has .* neurons in the weights, but per_layer_config .* says 20"),
        (unknown_type, "gpt99"),
        (remove("config.json"), "has no config.json, so it is not a model folder"),
        (write("config.json", b"{oops"), "is not JSON"),
        (write("config.json", b"[1, 2]"), "config.json"),
        (write("config.json", b"\xff\xfe\x00"), "config.json"),
        (write("tokenizer.json", b"{oops"), "No tokenizer could be read"),
        (remove("model.safetensors"), "holds no safetensors weights"),
    ],
    ids=lambda v: getattr(v, "__name__", "says"),
)
def test_a_damaged_folder_gets_a_sentence(folder, damage, sentence):
    (folder / RECORD).unlink()  # as another tool would have written it; with it, see the faults
    damage(folder)
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.load(folder, device="cpu")


@pytest.mark.parametrize("equal", [True, False])
def test_a_head_of_its_own_that_is_missing_is_noticed(equal, tokenizer, tmp_path):
    """Llama's output layer is not tied to its embedding here: without it the logits are noise."""
    model = tiny("llama", tie_word_embeddings=False)
    folder = gl.save(gl.shrink(model, random_masks(model, equal)), tokenizer, tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(gl.GumlabError, match="lm_head"):
        gl.load(folder, device="cpu")


def test_a_tokenizer_without_padding_gets_one(gpt2, tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    _, loaded = gl.load(gl.save(gpt2, tokenizer, tmp_path / "m"), device="cpu")
    assert loaded.pad_token_id == loaded.eos_token_id


def test_an_unknown_name_is_answered_with_the_nearest(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        gl.GumlabError, match=r"Unknown model 'tiny-gpt-noe'. Did you mean 'tiny-gpt-neo'"
    ):
        gl.load("tiny-gpt-noe")
    with pytest.raises(
        gl.GumlabError, match=r"'./nowhere' is not a built-in model.*not a folder here"
    ):
        gl.load("./nowhere")


@pytest.mark.parametrize("name", ["gpt2-not-here", "someone/some-model"])
def test_without_a_network_the_files_to_fetch_are_named(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(gl.GumlabError, match=r"Without a network.*model.safetensors") as said:
        gl.load(name)
    assert repr(name) in str(said.value)
    assert "tiny-gpt-neo" in str(said.value)
