"""The models, rows and tables of notebook 12."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import gumlab as gl
from gumlab.course import check, zoo
from gumlab.study import paper


@pytest.fixture(scope="module")
def models():
    return zoo.small_models()


def test_the_blocks_found_by_their_sizes_are_gumlabs_own(models):
    for name, model in models.items():
        found = [
            kind
            for d, shapes in zoo.linear_shapes(model)
            if (kind := check.block_kind.reference(d, shapes))
        ]
        if name == "Mixtral":
            assert found == []
        else:
            assert len(found) == len(gl.neurons(model))
    table = zoo.kinds(models, check.block_kind.reference)
    assert table["yours"].to_dict() == {
        "tiny-gpt2": "plain",
        "tiny-gpt-neo": "plain",
        "tiny-llama": "gated",
        "OPT": "plain",
        "Qwen3": "gated",
        "Phi-3": "fused",
        "Mixtral": "no block",
    }
    assert table.loc["Mixtral", "gumlab"].startswith("Expected one feed-forward block")


def test_masked_and_cut_models_have_the_same_logits_and_a_damaged_one_would_be_seen(
    models, monkeypatch
):
    few = {name: models[name] for name in ("tiny-gpt2", "Phi-3", "Mixtral")}
    assert zoo.same_logits(few)
    right = zoo.shrink

    def wrong(model, masks):
        small = right(model, masks)
        gl.neurons(small)[0].proj.weight.data.mul_(1.5)
        return small

    monkeypatch.setattr(zoo, "shrink", wrong)
    assert not zoo.same_logits(few)


def test_published_shapes_take_no_memory_and_are_of_the_known_size():
    millions = {
        name: round(sum(zoo.parts(model).values()) / 1e6)
        for name, model in zoo.published_models().items()
    }
    assert millions == {"gpt2": 124, "EleutherAI/gpt-neo-125m": 125, "Qwen/Qwen3-0.6B": 596}


def test_a_shops_rows_are_drawn_once_each_and_split():
    shop = zoo.shop(100)
    assert [len(part) for part in (shop.train, shop.validation, shop.test)] == [80, 10, 10]
    prompts = [example.prompt for example in (*shop.train, *shop.validation, *shop.test)]
    assert len(set(prompts)) == 100


def test_the_first_byte_of_a_tensor_is_where_its_first_number_lies(tmp_path):
    model, tokenizer = gl.load("tiny-gpt2", device="cpu")
    gl.save(model, tokenizer, tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    name = "transformer.h.1.mlp.c_proj.weight"
    place = zoo.first_byte(file, name)
    number = torch.frombuffer(bytearray(file.read_bytes()[place : place + 4]), dtype=torch.float32)
    assert number == load_file(file)[name].flatten()[0]


def test_the_stored_chat_has_the_whole_model_first_and_every_model_answers_every_question():
    chat = paper.real_chat()
    answers = paper.real_answers()
    assert chat.index[0] == "dense"
    assert chat.loc["dense", "write, x dense"] == 1
    assert list(answers.columns) == list(chat.index)
    assert answers.notna().all(axis=None)
    assert (chat["parameters"].drop("dense") < chat.loc["dense", "parameters"]).all()
    assert (chat["file, MB"].drop("dense") < chat.loc["dense", "file, MB"]).all()
