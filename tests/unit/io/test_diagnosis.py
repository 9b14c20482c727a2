"""What `doctor` says of good, padded, unequal, foreign and broken folders."""

import json
import re
import shutil

import pytest
import torch
from helpers.models import random_masks, tiny
from safetensors.torch import load_file, save_file

import gumlab as gl
from gumlab.io.diagnosis import INDEX, doctor
from gumlab.io.record import RECORD

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(gpt2, tokenizer, tmp_path):
    """A pruned checkpoint without its record of checksums, as another tool would leave it."""
    folder = gl.save(gl.shrink(gpt2, random_masks(gpt2)), tokenizer, tmp_path / "model")
    (folder / RECORD).unlink()
    return folder


def failures(report):
    return [f.text for f in report.findings if not f.good]


def test_equal_widths_load_anywhere(model, tokenizer, tmp_path):
    small = gl.shrink(model, random_masks(model))
    report = doctor(gl.save(small, tokenizer, tmp_path / "m"))
    assert (report.widths, report.layout) == ([11, 11], "equal")
    assert report.loads_with == ["gumlab", "transformers"]
    assert report.architecture == type(model).__name__
    assert report.dtype == "float32"
    assert failures(report) == []
    assert repr(report).splitlines()[-1] == "[OK]   Plain transformers and gumlab.load load it."


def test_unequal_widths_load_with_gumlab_only(model, tokenizer, tmp_path):
    small = gl.shrink(model, random_masks(model, equal=False))
    report = doctor(gl.save(small, tokenizer, tmp_path / "m"))
    assert (report.widths, report.layout, report.loads_with) == ([7, 11], "unequal", ["gumlab"])
    assert "7, 11 feed-forward neurons by layer: unequal widths (per_layer_config)" in repr(report)
    assert "Only gumlab.load loads it" in repr(report)
    assert failures(report) == []


def test_padding_is_found_by_its_zero_neurons(model, tokenizer, tmp_path):
    small = gl.shrink(model, random_masks(model, equal=False))
    report = doctor(gl.save(small, tokenizer, tmp_path / "m", pad=True))
    assert (report.widths, report.in_use, report.layout) == ([11, 11], [7, 11], "zero-padded")
    assert report.loads_with == ["gumlab", "transformers"]
    assert "zero-padded, 7, 11 in use" in repr(report)


def test_the_dtype_is_that_of_the_file(gpt2, tokenizer, tmp_path):
    assert doctor(gl.save(gpt2.half(), tokenizer, tmp_path / "m")).dtype == "float16"


def change_config(**values):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    change.__name__ = "-".join(values)
    return change


def cut_off(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-500])


def cut_in_the_header(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])


def flipped_in_the_header(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[20] ^= 0x80
    (folder / WEIGHTS).write_bytes(data)


def empty_weights(folder):
    (folder / WEIGHTS).write_bytes(b"")


def a_folder_in_its_place(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def lfs_pointer(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def pickle_only(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def missing_shard(folder):
    state = load_file(folder / WEIGHTS)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / WEIGHTS).unlink()
    first = list(state)[::2]
    save_file({k: state[k] for k in first}, folder / names[0], metadata={"format": "pt"})
    index = {"weight_map": {k: names[k not in first] for k in state}}
    (folder / INDEX).write_text(json.dumps(index))


def broken_index(folder):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text('{"weight_map": [1, 2]}')


def weights_of_another(folder):
    tiny("llama").save_pretrained(folder.parent / "other")
    shutil.copy(folder.parent / "other" / WEIGHTS, folder / WEIGHTS)


def emptied(folder):
    for file in folder.iterdir():
        file.unlink()


def thesis(folder):
    emptied(folder)
    (folder / "chapter1.txt").write_text("years of work")


def llama_cpp(folder):
    thesis(folder)
    (folder / "model.gguf").write_bytes(b"GGUF")


def one_level_up(folder):
    emptied(folder)
    (folder / "checkpoint-500").mkdir()
    (folder / "checkpoint-500" / "config.json").write_text("{}")


def config_is_no_json(folder):
    (folder / "config.json").write_text("{oops")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (emptied, r"^The folder is empty\.$"),
        (thesis, "has no config.json, so it is not a model folder"),
        (llama_cpp, r"model.gguf is a file of llama.cpp, which gumlab does not read"),
        (one_level_up, "Did you mean .*checkpoint-500"),
        (config_is_no_json, "config.json is not JSON"),
        (change_config(model_type="gpt99"), "model type 'gpt99', which is no causal language"),
        (change_config(model_type=["gpt2"]), "which is no causal language model"),
        (change_config(n_embd=20), "lacks weights that its config.json asks for"),
        (cut_off, "model.safetensors was cut off or changed"),
        (cut_in_the_header, "model.safetensors has no readable header: it was cut off early"),
        (flipped_in_the_header, "model.safetensors has a damaged header"),
        (empty_weights, "model.safetensors has no readable header"),
        (a_folder_in_its_place, "model.safetensors cannot be read"),
        (lfs_pointer, "run `git lfs pull`"),
        (pickle_only, "Pickled, so opening could run code: pytorch_model.bin; gumlab never opens"),
        (missing_shard, "1 of the 2 shards that .* names are missing: model-00002-of-00002"),
        (broken_index, f"{INDEX} is damaged"),
        (weights_of_another, "lacks weights that its config.json asks for"),
    ],
    ids=lambda v: getattr(v, "__name__", "says"),
)
def test_what_cannot_be_loaded_gets_a_sentence(folder, damage, sentence):
    damage(folder)
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    report = doctor(folder)
    assert report.loads_with == []
    found = [text for text in failures(report) if re.search(sentence, text)]
    assert len(found) == 1, failures(report)
    assert "\n" not in found[0]
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    assert failures(report)[-1].startswith(("Neither gumlab.load", "The folder is empty"))


def test_the_doctor_agrees_with_load(folder):
    """Bytes flipped anywhere: what the doctor calls loadable loads, and the rest does not."""
    whole = (folder / WEIGHTS).read_bytes()
    outcomes = set()
    for at in [*range(0, 60, 6), len(whole) // 2, len(whole) - 1]:
        data = bytearray(whole)
        data[at] ^= 0x55
        (folder / WEIGHTS).write_bytes(data)
        try:
            gl.load(folder, device="cpu")
            loads = True
        except gl.GumlabError:
            loads = False
        assert ("gumlab" in doctor(folder).loads_with) == loads, at
        outcomes.add(loads)
    assert outcomes == {True, False}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_named(folder, value):
    state = load_file(folder / WEIGHTS)
    state["transformer.wpe.weight"][3, 3] = value
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    report = doctor(folder)
    (text,) = failures(report)
    assert "NaN or infinity in 1 tensor(s), such as transformer.wpe.weight" in text
    assert report.loads_with == ["gumlab", "transformers"]


def test_a_number_that_no_training_makes_is_named(folder):
    state = load_file(folder / WEIGHTS)
    state["transformer.wpe.weight"][3, 3] = -2e30
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    assert failures(doctor(folder)) == [
        "No NaN or infinity; the largest is 2e+30, in transformer.wpe.weight."
    ]


def test_nothing_is_ever_unpickled(folder, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (print, ("opened",))

    torch.save(Bomb(), folder / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", None)
    report = doctor(folder)
    assert report.loads_with == ["gumlab", "transformers"]
    assert "pytorch_model.bin" in repr(report)
    assert failures(report) == []


def test_without_a_tokenizer_only_transformers_loads_it(folder):
    for file in folder.glob("token*"):
        file.unlink()
    report = doctor(folder)
    assert report.loads_with == ["transformers"]
    assert "No tokenizer is in" in failures(report)[0]
    with pytest.raises(gl.GumlabError, match="No tokenizer is in"):
        gl.load(folder, device="cpu")


def test_a_tokenizer_too_large_for_the_model_is_named(folder, tokenizer, gpt2):
    small = tiny("gpt2", vocab_size=40)
    gl.save(small, tokenizer, folder)
    assert "they do not belong together" in failures(doctor(folder))[0]


def test_a_model_without_neurons_we_know_still_loads(tokenizer, tmp_path):
    model = tiny("mixtral")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    report = doctor(tmp_path)
    assert report.loads_with == ["gumlab", "transformers"]
    assert "mixtures of experts are not supported" in failures(report)[0]


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_an_error(tmp_path, name):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(gl.GumlabError, match="cannot be looked into"):
        doctor(tmp_path / name)
