"""What gumlab is handed in the place of a language model, and what leaves by `gl.save`.

A situation, and the value (computed independently) or the sentence that must come.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import threading
import types

import pytest
import torch
import transformers
from helpers.models import VOCAB, D, N, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from torch import nn

import gumlab as gl
from gumlab.feedforward import FeedForward, neurons, width_field
from gumlab.io.states import load_state, save_state
from gumlab.language import language_config
from gumlab.removal import check_copyable
from gumlab.tasks.batches import context_length

TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": D,
    "intermediate_size": N,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 2,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
EYES = {
    "hidden_size": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
EARS = {
    "d_model": 8,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "num_mel_bins": 16,
    "max_source_positions": 8,
}
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": D,
    "intermediate_size": N,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
BART = {
    "vocab_size": VOCAB,
    "d_model": D,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": N,
    "decoder_ffn_dim": N,
}
PLACE = VOCAB - 1  # the token in whose place an image or a sound is put
IMAGE = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
SOUND = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(2))


def made(kind: str, config, seed: int = 0) -> nn.Module:
    """A model of a class of transformers, of random weights about 0.3."""
    model = getattr(transformers, kind)(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def prompt(places: int) -> torch.Tensor:
    return torch.tensor([[5, 6, *([PLACE] * places), 7, 8, 9]])


def gemma3():
    config = transformers.Gemma3Config(
        text_config=TEXT,
        vision_config=EYES,
        mm_tokens_per_image=4,
        image_token_index=PLACE,
        boi_token_index=PLACE - 1,
        eoi_token_index=PLACE - 2,
    )
    inputs = {"input_ids": prompt(4), "pixel_values": IMAGE}
    return made("Gemma3ForConditionalGeneration", config), inputs, "vision_tower"


def llava():
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**EYES),
        image_token_index=PLACE,
    )
    inputs = {"input_ids": prompt(4), "pixel_values": IMAGE}
    return made("LlavaForConditionalGeneration", config), inputs, "vision_tower"


def smolvlm():
    config = transformers.SmolVLMConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=EYES,
        image_token_id=PLACE,
        scale_factor=2,
        pad_token_id=1,
    )
    inputs = {"input_ids": prompt(1), "pixel_values": IMAGE[:, None]}
    return made("SmolVLMForConditionalGeneration", config), inputs, "vision_model"


def qwen2_audio():
    config = transformers.Qwen2AudioConfig(
        text_config=transformers.Qwen2Config(**TEXT),
        audio_config=EARS,
        audio_token_index=PLACE,
    )
    inputs = {
        "input_ids": prompt(4),
        "attention_mask": torch.ones(1, 9).long(),
        "input_features": SOUND,
        "feature_attention_mask": torch.ones(1, 16).long(),
    }
    return made("Qwen2AudioForConditionalGeneration", config), inputs, "audio_tower"


MULTIMODAL = {"gemma3": gemma3, "llava": llava, "smolvlm": smolvlm, "qwen2_audio": qwen2_audio}


def answers(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a prompt with an image or a sound in it."""
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("name", MULTIMODAL)
class TestModelsThatSeeOrHear:
    """Both towers are cut, and what is saved cannot be loaded (Model-Optimizer 1792)."""

    def test_only_the_language_part_is_pruned_and_the_logits_are_the_gated_ones(self, name):
        model, inputs, tower = MULTIMODAL[name]()
        layers = neurons(model)
        assert [layer.width for layer in layers] == [N, N]
        assert all(".layers." in layer.name and tower not in layer.name for layer in layers)
        assert width_field(model) == "intermediate_size"
        assert context_length(model) == TEXT["max_position_embeddings"]
        masks = random_masks(model)
        small = gl.shrink(model, masks)
        with gl.gate(model, masks):
            gated = answers(model, inputs)
        torch.testing.assert_close(answers(small, inputs), gated, rtol=1e-4, atol=1e-5)
        whole = answers(model, inputs)
        assert not torch.allclose(whole, gated, atol=1e-3)
        sees = copy.deepcopy(inputs)
        sees["input_features" if tower == "audio_tower" else "pixel_values"] *= -1
        assert not torch.allclose(answers(model, sees), whole, atol=1e-4)  # they do look

    @pytest.mark.parametrize("in_place", [True, False])
    def test_eyes_and_ears_stay_bit_for_bit(self, name, in_place, tokenizer):
        model, _, _ = MULTIMODAL[name]()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        blocks = tuple(f"{layer.name}." for layer in neurons(model))
        small = gl.prune(
            model, "recommended", tokenizer, make_examples(8), keep=0.5, in_place=in_place
        )
        after = small.state_dict()
        assert before.keys() == after.keys()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed
        assert all(key.startswith(blocks) for key in changed)
        small_widths = [layer.width for layer in neurons(small)]
        assert sum(small_widths) == N

    def test_equal_and_padded_widths_load_in_plain_transformers(self, name, tokenizer, tmp_path):
        model, inputs, _ = MULTIMODAL[name]()
        for pad in (False, True):
            small = gl.shrink(model, random_masks(model, equal=not pad))
            folder = gl.save(small, tokenizer, tmp_path / f"pad {pad}", pad=pad)
            settings = json.loads((folder / "config.json").read_text())
            assert settings["text_config"]["intermediate_size"] == 11
            assert "per_layer_config" not in settings
            plain = type(model).from_pretrained(folder).eval()
            torch.testing.assert_close(
                answers(plain, inputs), answers(small, inputs), rtol=1e-5, atol=1e-5
            )
        assert language_config(model).intermediate_size == N

    def test_unequal_widths_are_recorded_beside_the_text_s_field(self, name, tokenizer, tmp_path):
        model, _, _ = MULTIMODAL[name]()
        small = gl.shrink(model, random_masks(model, equal=False))
        folder = gl.save(small, tokenizer, tmp_path / "model")
        settings = json.loads((folder / "config.json").read_text())
        recorded = {"0": {"intermediate_size": 7}, "1": {"intermediate_size": 11}}
        assert settings["per_layer_config"] == recorded
        assert "gumlab.load" in (folder / "README.md").read_text()


class TestWhatIsMeasuredOnText:
    """Brothers of it: parts that text alone does not reach."""

    def test_a_layer_that_only_images_reach_is_named(self, tokenizer):
        config = transformers.MllamaConfig(
            text_config=TEXT
            | {
                "num_hidden_layers": 3,
                "cross_attention_layers": [1],
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            vision_config=EYES
            | {
                "num_global_layers": 1,
                "attention_heads": 2,
                "vision_output_dim": 16,
                "intermediate_layers_indices": [0],
                "supported_aspect_ratios": [[1, 1]],
            },
            image_token_index=PLACE,
        )
        model = made("MllamaForConditionalGeneration", config)
        assert len(neurons(model)) == 3
        assert len(gl.score(model, "magnitude")) == 3
        for method in ("wanda", "taylor"):
            with pytest.raises(gl.GumlabError, match=r"layers\.1\.mlp does not run on text alone"):
                gl.score(model, method, tokenizer, make_examples(4))

    def test_a_model_that_needs_pixels_says_so(self, tokenizer, task):
        config = transformers.Blip2Config(
            vision_config=EYES,
            qformer_config=SMALL | {"hidden_size": 8, "encoder_hidden_size": 8},
            text_config=transformers.OPTConfig(**SMALL, ffn_dim=N, word_embed_proj_dim=D),
            image_token_index=PLACE,
            num_query_tokens=2,
        )
        model = made("Blip2ForConditionalGeneration", config)
        assert all("language_model" in layer.name for layer in neurons(model))
        small = gl.prune(model, "magnitude", keep=0.5, refit=False)
        assert small.config.text_config.ffn_dim == neurons(small)[0].width
        for use in (
            lambda: gl.prune(model, "wanda", tokenizer, task),
            lambda: gl.evaluate(model, tokenizer, task),
        ):
            with pytest.raises(gl.GumlabError, match="not run on text alone: it reads pixel_val"):
                use()


MOE = TEXT | {"num_experts": 2, "num_experts_per_tok": 1}
DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 8,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
OTHERS = {  # class: (config's class, its settings, what the sentence says)
    "T5ForConditionalGeneration": (
        "T5Config",
        {"vocab_size": VOCAB, "d_model": D, "d_kv": 8, "d_ff": N, "num_layers": 2, "num_heads": 2},
        "is an encoder-decoder",
    ),
    "BartForConditionalGeneration": ("BartConfig", BART, "is an encoder-decoder"),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        BART
        | {"num_mel_bins": 16, "max_source_positions": 8, "pad_token_id": 1, "bos_token_id": 2},
        "is an encoder-decoder",
    ),
    "BertForMaskedLM": ("BertConfig", SMALL, r"is an encoder: .*attention.self is not causal"),
    "ModernBertForMaskedLM": (
        "ModernBertConfig",
        SMALL | {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 0, "cls_token_id": 2},
        r"is an encoder: .*layers\.0\.attn is not causal",
    ),
    "XLNetLMHeadModel": (
        "XLNetConfig",
        {"vocab_size": VOCAB, "d_model": D, "n_layer": 2, "n_head": 2, "d_inner": N},
        r"is an encoder: .*attn_type is 'bi'",
    ),
    "ViTForImageClassification": (
        "ViTConfig",
        EYES | {"hidden_size": D},
        "is no model of text: it reads pixel_values",
    ),
    "CLIPModel": ("CLIPConfig", {"text_config": TEXT, "vision_config": EYES}, "is an encoder"),
    "Wav2Vec2ForCTC": (
        "Wav2Vec2Config",
        SMALL
        | {
            "conv_dim": (8,),
            "conv_kernel": (3,),
            "conv_stride": (2,),
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
        },
        "is no model of text: it reads input_values",
    ),
    "MambaForCausalLM": (
        "MambaConfig",
        {"vocab_size": VOCAB, "hidden_size": D, "num_hidden_layers": 2, "state_size": 4},
        r"found 0 \(none\); backbone.layers.0, a MambaBlock, holds .*mixer \(MambaMixer",
    ),
    "Qwen2MoeForCausalLM": (
        "Qwen2MoeConfig",
        MOE | {"shared_expert_intermediate_size": N, "mlp_only_layers": [0]},
        r"found 2 \(.*shared_expert.*\), a mixture of experts",
    ),
    "DeepseekV3ForCausalLM": (
        "DeepseekV3Config",
        {key: TEXT[key] for key in TEXT if key != "head_dim"}
        | DEEPSEEK
        | {"first_k_dense_replace": 1},
        r"found 2 \(model.layers.0.mlp, .*experts\), a mixture of experts",
    ),
}


class TestOtherKindsOfModels:
    """Refused with what they are (Model-Optimizer 1792, brothers of it)."""

    @pytest.mark.filterwarnings("ignore")  # of transformers, on configs as small as these
    @pytest.mark.parametrize("kind", OTHERS)
    def test_what_is_no_decoder_of_text_is_said_to_be(self, kind):
        config, settings, sentence = OTHERS[kind]
        with torch.device("meta"):
            model = getattr(transformers, kind)(getattr(transformers, config)(**settings))
        with pytest.raises(gl.GumlabError, match=rf"{kind}.*{sentence}"):
            gl.neurons(model)

    def test_dense_layers_of_a_family_with_experts_are_plain_blocks(self):
        settings = {key: TEXT[key] for key in TEXT if key != "head_dim"} | DEEPSEEK
        config = transformers.DeepseekV3Config(**settings, first_k_dense_replace=2)
        model = made("DeepseekV3ForCausalLM", config)
        masks = random_masks(model, equal=False)
        ids = torch.arange(5, 15)[None]
        with gl.gate(model, masks):
            gated = model(ids).logits
        torch.testing.assert_close(gl.shrink(model, masks)(ids).logits, gated)

    def test_two_stacks_without_a_config_are_named(self):
        towers = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    nn.ModuleDict(
                        {"mlp": nn.Sequential(nn.Linear(D, N), nn.ReLU(), nn.Linear(N, D))}
                    )
                    for _ in range(2)
                )
                for name in ("image", "text")
            }
        )
        with pytest.raises(gl.GumlabError, match=r"several stacks .*image\.\*\.mlp, text\.\*\.mlp"):
            gl.neurons(towers)
        assert len(gl.neurons(towers["text"])) == 2

    def test_a_composite_with_two_language_parts_is_named(self):
        model, _, _ = llava()
        model.draft = transformers.LlamaModel(model.config.text_config)
        with pytest.raises(gl.GumlabError, match=r"one language part .*language_model, draft"):
            gl.neurons(model)
