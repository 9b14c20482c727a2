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
from gumlab.io import modeling_pruned
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
EYES = {  # as wide as the text, so that width alone does not tell them apart
    "hidden_size": D,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
EARS = {
    "d_model": D,
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

    def test_unequal_widths_are_recorded_where_something_loads_them(
        self, name, tokenizer, tmp_path
    ):
        model, inputs, _ = MULTIMODAL[name]()
        small = gl.shrink(model, random_masks(model, equal=False))
        if name != "gemma3":  # which alone AutoModelForCausalLM builds whole
            with pytest.raises(gl.GumlabError, match=r"could be loaded by nothing.*pad=True"):
                gl.save(small, tokenizer, tmp_path / "model")
            assert list(tmp_path.iterdir()) == []
            return
        folder = gl.save(small, tokenizer, tmp_path / "model")
        loaded, _ = gl.load(folder, device="cpu")
        torch.testing.assert_close(answers(loaded, inputs), answers(small, inputs))
        settings = json.loads((folder / "config.json").read_text())
        recorded = {"0": {"intermediate_size": 7}, "1": {"intermediate_size": 11}}
        assert settings["per_layer_config"] == recorded
        assert "gumlab.load" in (folder / "README.md").read_text()

    def test_and_by_the_code_beside_them(self, name, tokenizer, tmp_path):
        """Its weights have other names in the file than in the model (Gemma 3)."""
        model, inputs, _ = MULTIMODAL[name]()
        small = gl.shrink(model, random_masks(model, equal=False))
        if name != "gemma3":
            with pytest.raises(gl.GumlabError, match="could be loaded by nothing"):
                gl.save(small, tokenizer, tmp_path / "model", with_code=True)
            assert list(tmp_path.iterdir()) == []
            return
        folder = gl.save(small, tokenizer, tmp_path / "model", with_code=True)
        kind = getattr(modeling_pruned, type(model).__name__)
        kind.from_pretrained(folder).save_pretrained(tmp_path / "again")
        for saved in (folder, tmp_path / "again"):
            built = kind.from_pretrained(saved).eval()
            torch.testing.assert_close(answers(built, inputs), answers(small, inputs))


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
        EYES,
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


def uses(model, tokenizer, task, folder):
    """What a wrapper, or something else, may be handed to."""
    masks = [torch.ones(N, dtype=torch.bool)] * 2
    return {
        "evaluate": lambda: gl.evaluate(model, tokenizer, task),
        "generate": lambda: gl.evaluation.generate(model, tokenizer, task.test),
        "measure": lambda: gl.measure(model, repeats=2),
        "score": lambda: gl.score(model, "wanda", tokenizer, task),
        "redundancy": lambda: gl.redundancy(model, tokenizer, task),
        "prune": lambda: gl.prune(model, "recommended", tokenizer, task),
        "shrink": lambda: gl.shrink(model, masks),
        "gate": lambda: gl.gate(model, masks),
        "Pruner": lambda: gl.Pruner(model, "gum", 0.5, 4),
        "train": lambda: gl.train(model, tokenizer, task, steps=1, progress=False),
        "save": lambda: gl.save(model, tokenizer, folder),
    }


USES = tuple(uses(None, None, None, None))


class Lightning(nn.Module):
    """A training module that holds the model, as Lightning's do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, labels=ids).loss


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A process group of one, by gloo."""
    file = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # torch's own, on a process group of one
class TestWrappers:
    """AttributeError, or TypeError after the work (h2ogpt 30, peft 1746)."""

    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize(
        ("wrap", "inner"),
        [
            (nn.DataParallel, r"model\.module"),
            (Lightning, r"model\.model"),
            (nn.Sequential, r"model\[0\]"),
        ],
        ids=["DataParallel", "Lightning", "Sequential"],
    )
    def test_a_wrapper_is_refused_at_once(self, wrap, inner, use, gpt2, tokenizer, task, tmp_path):
        wrapper = wrap(gpt2)
        before = {key: value.clone() for key, value in gpt2.state_dict().items()}
        with pytest.raises(gl.GumlabError, match=rf"wraps a model. Give .* itself, {inner}:"):
            uses(wrapper, tokenizer, task, tmp_path / "model")[use]()
        assert list(tmp_path.iterdir()) == []
        assert all(torch.equal(before[key], value) for key, value in gpt2.state_dict().items())

    @pytest.mark.parametrize("use", ["measure", "score", "prune", "Pruner", "gate", "save"])
    def test_a_compiled_model_is_not_pruned(self, use, gpt2, tokenizer, task, tmp_path):
        wrapper = torch.compile(gpt2, backend="eager")
        with pytest.raises(gl.GumlabError, match=r"OptimizedModule wraps a .*model\._orig_mod"):
            uses(wrapper, tokenizer, task, tmp_path / "model")[use]()
        assert list(tmp_path.iterdir()) == []

    def test_but_it_is_evaluated_and_trained_as_its_model(self, tokenizer, task):
        ends = []
        for wrap in (torch.nn.Identity(), functools.partial(torch.compile, backend="eager")):
            model = tiny("gpt2")
            wrapped = wrap(model)
            before = gl.evaluate(wrapped, tokenizer, task)
            history = gl.train(wrapped, tokenizer, task, steps=3, progress=False)
            ends.append((before, history.losses, gl.evaluate(model, tokenizer, task)))
            torch._dynamo.reset()
        for plain, compiled in zip(*ends, strict=True):
            assert plain == pytest.approx(compiled, rel=1e-4)

    @pytest.mark.parametrize("use", ["evaluate", "prune", "Pruner", "save"])
    def test_ddp_too(self, use, one_process, gpt2, tokenizer, task, tmp_path):
        wrapper = nn.parallel.DistributedDataParallel(gpt2)
        with pytest.raises(gl.GumlabError, match=r"DistributedDataParallel wraps .*model\.module"):
            uses(wrapper, tokenizer, task, tmp_path / "model")[use]()

    def test_what_is_done_to_the_model_is_seen_through_its_wrapper(self, gpt2):
        ids = torch.arange(5, 15)[None]
        wrapper = nn.DataParallel(gpt2)
        masks = random_masks(gpt2)
        small = gl.shrink(gpt2, masks)
        with gl.gate(gpt2, masks):
            gated = wrapper(ids).logits
        torch.testing.assert_close(gated, small(ids).logits)

    @pytest.mark.parametrize("precision", ["no", "bf16"])
    def test_a_model_prepared_by_accelerate_is_a_model(self, precision, tokenizer, tmp_path):
        accelerate = pytest.importorskip("accelerate")
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
        model = accelerator.prepare(tiny("gpt2"))
        masks = random_masks(model)
        ids = torch.arange(5, 15)[None]
        small = gl.shrink(model, masks)
        with gl.gate(model, masks):
            gated = model(ids).logits
        torch.testing.assert_close(small(ids).logits, gated, rtol=1e-2, atol=1e-1)
        loaded, _ = gl.load(gl.save(small, tokenizer, tmp_path / "model"), device="cpu")
        want = gl.shrink(tiny("gpt2"), masks)
        assert torch.equal(loaded(ids).logits, want(ids).logits)
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)

    def test_parts_of_a_model_that_are_sharded_are_named(self, one_process):
        from torch.distributed.fsdp import fully_shard

        model = fully_shard(tiny("gpt2"), mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        with pytest.raises(gl.GumlabError, match=r"h\.0\..* spread over processes or flattened"):
            gl.neurons(model)

    def test_so_are_weights_that_deepspeed_holds_in_pieces(self, gpt2):
        proj = neurons(gpt2)[1].proj
        shape = proj.weight.shape
        proj.weight = nn.Parameter(torch.empty(0))
        proj.weight.ds_shape = shape
        with pytest.raises(gl.GumlabError, match=r"h\.1\.mlp\.c_proj are spread over processes"):
            gl.neurons(gpt2)

    def test_a_compiled_part_is_not_saved_under_names_that_nothing_loads(
        self, gpt2, tokenizer, tmp_path
    ):
        gpt2.transformer = torch.compile(gpt2.transformer, backend="eager")
        with pytest.raises(gl.GumlabError, match=r"is compiled \(transformer\._orig_mod\."):
            gl.save(gpt2, tokenizer, tmp_path / "model")
        gpt2.transformer = gpt2.transformer._orig_mod
        gl.save(gpt2, tokenizer, tmp_path / "model")
        assert os.listdir(tmp_path) == ["model"]

    @pytest.mark.parametrize(
        ("thing", "sentence"),
        [
            ("gpt2", r"got 'gpt2'\. Load one"),
            (None, r"got None\. Load one"),
            ("pair", r"got a tuple \(GPT2LMHeadModel, .*\)\. Give the model alone"),
            ("tokenizer", r"got a tokenizer \(.*\)\. The order is model, what, tokenizer, task"),
            ("pipeline", r"got a TextGenerationPipeline, which holds one.*its \.model"),
            ("pruner", r"got a Pruner, which holds one.*its \.model"),
        ],
    )
    @pytest.mark.parametrize("use", USES)
    def test_what_is_no_model_is_said_to_be(
        self, use, thing, sentence, gpt2, tokenizer, task, tmp_path
    ):
        make = {
            "pair": lambda: (gpt2, tokenizer),
            "tokenizer": lambda: tokenizer,
            "pipeline": lambda: transformers.pipeline(
                "text-generation", model=gpt2, tokenizer=tokenizer, device="cpu"
            ),
            "pruner": lambda: gl.Pruner(gpt2, "random", 0.5, 4),
        }
        handed = make[thing]() if thing in make else thing
        with pytest.raises(gl.GumlabError, match=sentence):
            uses(handed, tokenizer, task, tmp_path / "model")[use]()
        assert list(tmp_path.iterdir()) == []


class Own(transformers.GPT2LMHeadModel):
    """A subclass whose constructor asks for more than a config, and takes no notice of it."""

    def __init__(self, config, extra):
        super().__init__(config)
        self.extra = extra


class WithValues(transformers.GPT2LMHeadModel):
    """A subclass with a part of its own, as trl's models with a value head."""

    def __init__(self, config, extra=1):
        super().__init__(config)
        self.value = nn.Linear(config.n_embd, extra)


class Holder(nn.Module):
    """A module put together by hand, that is no model of transformers but has a config."""

    def __init__(self, model):
        super().__init__()
        self.pretrained_model = model
        self.v_head = nn.Linear(D, 1)
        self.config = model.config

    def forward(self, *args, **kwargs):
        return self.pretrained_model(*args, **kwargs)


def as_a(kind, model, *more, config=None):
    """The weights of a GPT-2 in a model of another class."""
    twin = kind(config or copy.deepcopy(model.config), *more)
    twin.load_state_dict(model.state_dict(), strict=False)
    return twin.eval()


class TestClassesOfOnesOwn:
    """`type(model)(config)` is assumed: TypeError after the work (peft 1746)."""

    @pytest.mark.parametrize("equal", [True, False])
    def test_a_constructor_that_asks_for_more_is_saved_and_loads(
        self, equal, gpt2, tokenizer, examples, tmp_path
    ):
        small = gl.shrink(as_a(Own, gpt2, 1), random_masks(gpt2, equal))
        assert type(small) is Own
        loaded, _ = gl.load(gl.save(small, tokenizer, tmp_path / "model"), device="cpu")
        batch = one_batch(gpt2, tokenizer, examples)
        assert torch.equal(logits_of(loaded, batch), logits_of(small, batch))

    def test_a_part_of_ones_own_is_saved_whole_for_its_own_class(self, gpt2, tokenizer, tmp_path):
        small = gl.shrink(as_a(WithValues, gpt2), random_masks(gpt2))
        folder = gl.save(small, tokenizer, tmp_path / "model")
        back = WithValues.from_pretrained(folder)
        assert torch.equal(back.value.weight, small.value.weight)
        assert 'WithValues.from_pretrained("model")' in (folder / "README.md").read_text()
        with pytest.raises(gl.GumlabError, match=r"value\.bias, value\.weight"):
            gl.load(folder, device="cpu")

    def test_and_where_nothing_could_load_it_it_is_refused_before(self, gpt2, tokenizer, tmp_path):
        small = gl.shrink(as_a(WithValues, gpt2), random_masks(gpt2, equal=False))
        with pytest.raises(gl.GumlabError, match=r"widths \(7, 11\) could be loaded by nothing"):
            gl.save(small, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []
        folder = gl.save(small, tokenizer, tmp_path / "model", pad=True)
        assert WithValues.from_pretrained(folder).config.n_inner == 11

    def test_a_module_with_a_config_is_pruned_and_not_saved(self, gpt2, tokenizer, tmp_path):
        masks = random_masks(gpt2)
        ids = torch.arange(5, 15)[None]
        small = gl.shrink(Holder(gpt2), masks)
        assert torch.equal(small(ids).logits, gl.shrink(gpt2, masks)(ids).logits)
        with pytest.raises(gl.GumlabError, match="writes models of transformers; Holder is none"):
            gl.save(small, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    def test_a_module_without_a_config_is_shrunk_and_its_save_says_what_is_missing(
        self, tokenizer, tmp_path
    ):
        stack = nn.ModuleList(
            nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(D, N), nn.ReLU(), nn.Linear(N, D))})
            for _ in range(2)
        )
        small = gl.shrink(stack, random_masks(stack))
        assert [layer.width for layer in neurons(small)] == [11, 11]
        with pytest.raises(gl.GumlabError, match=r"ModuleList is none .*no config_class"):
            gl.save(small, tokenizer, tmp_path / "model")


class OwnBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(D, N), nn.ReLU(), nn.Linear(N, D))

    def forward(self, x):
        return x + self.mlp(x)


class OwnConfig(transformers.PretrainedConfig):
    model_type = "of_ones_own"

    def __init__(self, hidden_size=D, num_hidden_layers=2, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers


class OwnModel(transformers.PreTrainedModel):
    """A model of a class of one's own, whose head is its embedding."""

    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList([OwnBlock(), OwnBlock()])
        self.post_init()

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask=None):
        x = self.table(input_ids)
        for layer in self.layers:
            x = layer(x)
        return types.SimpleNamespace(logits=x @ self.table.weight.T)


class TestModelsOfOnesOwn:
    """Brothers of it: a class and a config that no library has."""

    def test_it_is_scored_saved_dense_and_loads_by_its_class(self, tokenizer, task, tmp_path):
        model = OwnModel(OwnConfig()).eval()
        scores = gl.score(model, "taylor", tokenizer, task)
        assert all(len(score) == N for score in scores)
        folder = gl.save(model, tokenizer, tmp_path / "model")
        assert 'OwnModel.from_pretrained("model")' in (folder / "README.md").read_text()
        back = OwnModel.from_pretrained(folder)
        assert torch.equal(back.layers[1].mlp[2].weight, model.layers[1].mlp[2].weight)

    def test_a_width_that_its_config_does_not_say_is_not_saved(self, tokenizer, tmp_path):
        model = OwnModel(OwnConfig())
        small = gl.shrink(model, random_masks(model))
        with pytest.raises(gl.GumlabError, match=r"\(11, 11\) could be loaded by nothing.*entry"):
            gl.save(small, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []


class TestConfigsThatWereEdited:
    """The config is no longer what the model is (brothers of pytorch-prunes 1)."""

    @pytest.mark.parametrize("value", [None, 99])
    def test_a_wrong_width_is_taken_from_the_weights(
        self, value, gpt2, tokenizer, examples, tmp_path
    ):
        small = gl.shrink(gpt2, random_masks(gpt2))
        small.config.n_inner = value
        folder = gl.save(small, tokenizer, tmp_path / "model")
        plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        batch = one_batch(gpt2, tokenizer, examples)
        assert torch.equal(logits_of(plain, batch), logits_of(small, batch))
        assert plain.config.n_inner == 11
        assert small.config.n_inner == value

    @pytest.mark.parametrize(
        ("field", "value", "sentence"),
        [
            ("vocab_size", 70, r"says \(70, 16\) for .*wte.weight, the model holds \(64, 16\)"),
            ("n_positions", 32, r"says \(32, 16\) for .*wpe.weight, the model holds \(64, 16\)"),
            ("n_head", 5, r"cannot be built from its config \(ValueError"),
            ("n_layer", 3, "in each of the 3 layers of GPT2LMHeadModel, found 2"),
        ],
    )
    def test_anything_else_is_refused_before_the_work(
        self, field, value, sentence, gpt2, tokenizer, tmp_path
    ):
        setattr(gpt2.config, field, value)
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.save(gpt2, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []


class TestForwardsThatWereReplaced:
    """A copy shares a function, and runs the original's layers (pytorch 96136, a brother)."""

    @pytest.mark.parametrize("where", ["model", "block"])
    def test_a_plain_function_is_refused_where_a_copy_is_made(self, where, gpt2, tokenizer):
        module = gpt2 if where == "model" else gpt2.transformer.h[1].mlp
        inner = module.forward
        module.forward = lambda *args, **kwargs: inner(*args, **kwargs)
        masks = random_masks(gpt2)
        for use in (
            lambda: gl.shrink(gpt2, masks),
            lambda: gl.prune(gpt2, "wanda", tokenizer, make_examples(4)),
        ):
            with pytest.raises(gl.GumlabError, match=r"forward was replaced by a function .*lamb"):
                use()
        ids = torch.arange(5, 15)[None]
        with gl.gate(gpt2, masks):
            gated = gpt2(ids).logits
        small = gl.shrink(gpt2, masks, in_place=True)
        torch.testing.assert_close(small(ids).logits, gated)

    def test_a_bound_one_is_copied_with_its_model(self, gpt2):
        plain = type(gpt2).forward
        gpt2.forward = types.MethodType(lambda self, ids: plain(self, ids), gpt2)
        check_copyable(gpt2)
        masks = random_masks(gpt2)
        ids = torch.arange(5, 15)[None]
        small = gl.shrink(gpt2, masks)
        with gl.gate(gpt2, masks):
            gated = gpt2(ids).logits
        torch.testing.assert_close(small(ids).logits, gated)

    @pytest.mark.parametrize(
        "held",
        [lambda model: threading.Lock(), lambda model: model(torch.arange(4, 9)[None]).logits],
        ids=["a lock", "an output"],
    )
    def test_what_cannot_be_copied_is_said(self, held, gpt2):
        gpt2.kept = held(gpt2)
        with pytest.raises(gl.GumlabError, match=r"GPT2LMHeadModel cannot be copied .*in_place"):
            gl.shrink(gpt2, random_masks(gpt2))
        small = gl.shrink(gpt2, random_masks(gpt2), in_place=True)
        assert [layer.width for layer in neurons(small)] == [11, 11]


def broken(*_, **__):
    raise NotImplementedError("there is no vocabulary")


class Unsaid:
    def __str__(self):
        raise RuntimeError("no text")


class TestSavesThatWouldFailLate:
    """A raw ValueError after the work (llm-compressor 142), and its brothers."""

    @pytest.mark.parametrize(
        ("settings", "left_out", "kept"),
        [
            ({"temperature": 0.9, "do_sample": False}, ["temperature=0.9"], {}),
            ({"top_k": 7, "num_beams": 3}, ["top_k=7"], {"num_beams": 3}),
            (
                {"num_return_sequences": 2, "repetition_penalty": 1.5},
                ["num_return_sequences=2"],
                {"repetition_penalty": 1.5},
            ),
            ({"prefix": torch.ones(2), "max_length": 9}, ["prefix=tensor"], {"max_length": 9}),
        ],
    )
    def test_odd_generation_settings_are_left_out_and_said(
        self, settings, left_out, kept, tokenizer, tmp_path
    ):
        model = tiny("llama")
        for name, value in settings.items():
            setattr(model.generation_config, name, value)
        with pytest.warns(UserWarning, match="saved without") as said:
            folder = gl.save(model, tokenizer, tmp_path / "model")
        (warning,) = [str(one.message) for one in said if "saved without" in str(one.message)]
        assert all(one in warning for one in left_out)
        written = json.loads((folder / "generation_config.json").read_text())
        assert {key: written.get(key) for key in kept} == kept
        assert not {one.split("=")[0] for one in left_out} & written.keys()
        assert written["eos_token_id"] == 0
        loaded, _ = gl.load(folder, device="cpu")
        assert loaded.generation_config.eos_token_id == 0
        for name, value in settings.items():  # the model in memory keeps them
            assert getattr(model.generation_config, name) is value

    def test_settings_that_go_together_stay(self, tokenizer, tmp_path):
        model = tiny("llama")
        model.generation_config.update(temperature=0.9, do_sample=True, num_beams=2, top_k=5)
        folder = gl.save(model, tokenizer, tmp_path / "model")
        written = json.loads((folder / "generation_config.json").read_text())
        assert (written["temperature"], written["top_k"], written["num_beams"]) == (0.9, 5, 2)

    def test_the_model_s_own_config_stays_as_it_is(self, gpt2, tokenizer, tmp_path):
        before = gpt2.config.to_dict()
        gl.save(gpt2.half(), tokenizer, tmp_path / "model")
        assert gpt2.config.to_dict() == before

    @pytest.mark.parametrize(
        ("arrange", "sentence"),
        [
            (lambda o: o.update(tokenizer=None), "Expected the model's tokenizer, got None"),
            (lambda o: o.update(tokenizer=o["model"]), "Expected the model's tokenizer, got GPT2"),
            (lambda o: o.update(tokenizer="folder"), "Expected the model's tokenizer, got 'fold"),
            (
                lambda o: setattr(o["tokenizer"], "save_pretrained", broken),
                r"The tokenizer cannot be saved \(NotImplementedError: there is no vocabulary\)",
            ),
            (lambda o: o.update(folder=None), "folder must be a path, got None"),
            (lambda o: o.update(notes=["BLEU"]), "notes are the rows of the card's table, a dict"),
            (
                lambda o: o.update(notes={"a": Unsaid()}),
                r"note cannot be written, a Unsaid \(no",
            ),
            (lambda o: o.update(notes={"a": "\ud800"}), r"note cannot be written, a str \(.*utf-8"),
            (
                lambda o: setattr(o["model"].config, "mine", torch.ones(2)),
                r"The config cannot be saved \(TypeError.*JSON",
            ),
        ],
    )
    def test_each_part_is_named_before_anything_is_there(self, arrange, sentence, gpt2, tmp_path):
        options = {"model": gpt2, "tokenizer": word_tokenizer(), "folder": tmp_path / "model"}
        arrange(options)
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.save(**options)
        assert list(tmp_path.iterdir()) == []

    def test_an_occupied_folder_is_refused_before_anything_is_written(
        self, gpt2, tokenizer, tmp_path, monkeypatch
    ):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter").write_text("years of work")
        monkeypatch.setattr(type(gpt2), "save_pretrained", broken)
        with pytest.raises(gl.GumlabError, match="holds files that are not a checkpoint"):
            gl.save(gpt2, tokenizer, tmp_path / "thesis")
        assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter"]

    @pytest.mark.parametrize("config", ['{"port": 80}', "[]", "{oops"])
    def test_so_is_another_program_s_folder_that_has_a_config_too(
        self, config, gpt2, tokenizer, tmp_path
    ):
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "thesis").write_text("years of work")
        with pytest.raises(gl.GumlabError, match="holds files that are not a checkpoint"):
            gl.save(gpt2, tokenizer, tmp_path)
        assert (tmp_path / "thesis").read_text() == "years of work"

    @pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a\udcff", "circle"])
    def test_a_name_that_no_folder_can_have_is_refused(self, name, gpt2, tokenizer, tmp_path):
        (tmp_path / "circle").symlink_to(tmp_path / "circle")
        with pytest.raises(gl.GumlabError, match=r"Cannot write to .*Choose another folder\."):
            gl.save(gpt2, tokenizer, tmp_path / name)
        assert os.listdir(tmp_path) == ["circle"]

    def test_a_file_in_its_way_too(self, gpt2, tokenizer, tmp_path):
        (tmp_path / "file").write_text("a file")
        for folder in (tmp_path / "file", tmp_path / "file" / "model"):
            with pytest.raises(gl.GumlabError, match=r"Cannot write to .* is a file"):
                gl.save(gpt2, tokenizer, folder)
        assert os.listdir(tmp_path) == ["file"]

    def test_a_full_disk_leaves_what_was_there(self, gpt2, tokenizer, tmp_path, monkeypatch):
        folder = gl.save(gpt2, tokenizer, tmp_path / "model")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
        with pytest.raises(gl.GumlabError, match=r"No space left on device.*half-written"):
            gl.save(gl.shrink(gpt2, random_masks(gpt2)), tokenizer, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert os.listdir(tmp_path) == ["model"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_place_is_refused(self, gpt2, tokenizer, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o555)
        with pytest.raises(gl.GumlabError, match="read-only for you"):
            gl.save(gpt2, tokenizer, tmp_path / "locked" / "model")

    def test_the_folder_that_the_model_came_from_is_replaced(self, gpt2, tokenizer, tmp_path):
        folder = gl.save(gpt2, tokenizer, tmp_path / "model")
        loaded, its_tokenizer = gl.load(folder, device="cpu")
        small = gl.shrink(loaded, random_masks(loaded), in_place=True)
        ids = torch.arange(5, 15)[None]
        before = small(ids).logits
        gl.save(small, its_tokenizer, folder)
        assert torch.equal(small(ids).logits, before)
        assert torch.equal(gl.load(folder, device="cpu")[0](ids).logits, before)

    def test_of_two_saves_at_once_one_is_there_whole(self, gpt2, tokenizer, tmp_path):
        models = [gpt2, gl.shrink(gpt2, random_masks(gpt2))]
        errors = []

        def save(model):
            try:
                gl.save(model, tokenizer, tmp_path / "model")
            except gl.GumlabError as error:
                errors.append(error)

        for _ in range(3):
            threads = [threading.Thread(target=save, args=(model,)) for model in models]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not errors
        loaded, _ = gl.load(tmp_path / "model", device="cpu")
        assert [layer.width for layer in neurons(loaded)] in ([N, N], [11, 11])
        assert os.listdir(tmp_path) == ["model"]

    def test_a_note_stays_in_its_cell(self, gpt2, tokenizer, tmp_path):
        notes = {"a|b": "two\nlines | bar"}
        folder = gl.save(gpt2, tokenizer, tmp_path / "model", notes=notes)
        last = (folder / "README.md").read_text().splitlines()[-1]
        assert last == r"| a\|b | two lines \| bar |"

    @pytest.mark.parametrize("state", [{"a": object()}, {"a": {1, 2}}])
    def test_a_state_that_is_none_leaves_nothing(self, state, tmp_path):
        with pytest.raises(gl.GumlabError, match=r"Could not save a state.*Expected tensors"):
            save_state(state | {"weights": torch.ones(2)}, tmp_path / "state")
        assert list(tmp_path.iterdir()) == []
        save_state({"weights": torch.ones(2)}, tmp_path / "state")
        with pytest.raises(gl.GumlabError, match="Could not save a state"):
            save_state(state, tmp_path / "state")
        assert torch.equal(load_state(tmp_path / "state")["weights"], torch.ones(2))
        with pytest.raises(gl.GumlabError, match="Could not save a state"):
            save_state({}, tmp_path / "nowhere" / "state")


HEADS = {"num_labels": 3, "pad_token_id": 1}


def headed(kind: str) -> nn.Module:
    """The tiny GPT-2 with another head, and without any."""
    model = tiny("gpt2")
    config = copy.deepcopy(model.config)
    config.update(HEADS)
    return as_a(getattr(transformers, kind), model, config=config)


OTHER_HEADS = ("GPT2ForSequenceClassification", "GPT2ForTokenClassification")


class TestOtherHeads:
    """A head that is no language model's is lost in silence (transformers 4490)."""

    @pytest.mark.parametrize("kind", [*OTHER_HEADS, "GPT2DoubleHeadsModel", "GPT2Model"])
    def test_in_memory_it_is_pruned_as_any(self, kind, tokenizer, examples):
        model = headed(kind)
        ids = torch.arange(5, 15)[None]
        masks = gl.select(gl.score(model, "wanda", tokenizer, examples), 0.5)
        with gl.gate(model, masks):
            gated = model(ids)[0]
        torch.testing.assert_close(gl.shrink(model, masks)(ids)[0], gated)

    @pytest.mark.parametrize("kind", OTHER_HEADS)
    def test_it_is_saved_whole_and_its_card_says_what_loads_it(self, kind, tokenizer, tmp_path):
        small = gl.shrink(headed(kind), random_masks(tiny("gpt2")))
        ids = torch.arange(5, 15)[None]
        folder = gl.save(small, tokenizer, tmp_path / "model")
        assert f'transformers.{kind}.from_pretrained("model")' in (folder / "README.md").read_text()
        back = getattr(transformers, kind).from_pretrained(folder).eval()
        assert torch.equal(back(ids).logits, small(ids).logits)
        with pytest.raises(gl.GumlabError, match=rf"weight.*saved as {kind}"):
            gl.load(folder, device="cpu")

    @pytest.mark.parametrize("kind", [*OTHER_HEADS, "GPT2DoubleHeadsModel"])
    def test_of_unequal_widths_nothing_could_load_it(self, kind, tokenizer, tmp_path):
        small = gl.shrink(headed(kind), random_masks(tiny("gpt2"), equal=False))
        with pytest.raises(gl.GumlabError, match=rf"{kind} of these widths .*pad=True"):
            gl.save(small, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []
        folder = gl.save(small, tokenizer, tmp_path / "model", pad=True)
        back = getattr(transformers, kind).from_pretrained(folder).eval()
        ids = torch.arange(5, 15)[None]
        torch.testing.assert_close(back(ids)[0], small(ids)[0], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kind", [*OTHER_HEADS, "GPT2Model"])
    def test_what_needs_the_next_token_says_so(self, kind, tokenizer, task):
        model = headed(kind)
        for use in (
            lambda: gl.score(model, "taylor", tokenizer, task),
            lambda: gl.redundancy(model, tokenizer, task),
            lambda: gl.evaluate(model, tokenizer, task),
            lambda: gl.train(model, tokenizer, task, steps=1, progress=False),
        ):
            with pytest.raises(gl.GumlabError, match=f"{kind} has no language-model head"):
                use()

    @pytest.mark.parametrize("part", ["transformer.h.0.extra", "lm_head"])
    def test_a_part_that_no_class_builds_is_not_left_behind(self, part, tokenizer, tmp_path):
        model = tiny("gpt2", tie_word_embeddings=False)
        parent, _, name = part.rpartition(".")
        model.get_submodule(parent).add_module(name, nn.Linear(D, VOCAB))
        small = gl.shrink(model, random_masks(model))
        with pytest.raises(gl.GumlabError, match=rf"does not build \({part}\.bias.*would lose"):
            gl.save(small, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []


class TestWhereTheWeightsAre:
    """Weights that are not here, or of a type of their own (accelerate 1971)."""

    def test_a_model_without_numbers_is_counted_and_not_pruned(self, tokenizer, task, tmp_path):
        with torch.device("meta"):
            model = transformers.GPT2LMHeadModel(tiny("gpt2").config)
        assert gl.measure(model, latency=False)["widths"] == [N, N]
        masks = random_masks(model)
        for use in (
            lambda: gl.score(model, "magnitude"),
            lambda: gl.score(model, "wanda", tokenizer, task),
            lambda: gl.redundancy(model, tokenizer, task),
            lambda: gl.prune(model, "random", keep=0.5, refit=False),
            lambda: gl.shrink(model, masks, tokenizer, task, refit=True),
            lambda: gl.save(model, tokenizer, tmp_path / "model"),
        ):
            with pytest.raises(gl.GumlabError, match=r"on the meta device: they have a shape"):
                use()
        assert list(tmp_path.iterdir()) == []

    def test_one_without_numbers_beside_the_blocks_is_not_saved(self, gpt2, tokenizer, tmp_path):
        gpt2.transformer.wpe.to("meta")
        with pytest.raises(gl.GumlabError, match=r"transformer\.wpe\.weight is on the meta device"):
            gl.save(gpt2, tokenizer, tmp_path / "model")

    @pytest.mark.parametrize("where", ["cpu", "disk"])
    def test_offloaded_weights_are_named(self, where, gpt2, tokenizer, tmp_path):
        accelerate = pytest.importorskip("accelerate")
        if where == "cpu":
            accelerate.cpu_offload(gpt2, "cpu")
        else:
            accelerate.disk_offload(gpt2, tmp_path, "cpu")
        with pytest.raises(gl.GumlabError, match=r"transformer\.wte are offloaded \(accelerate"):
            gl.Pruner(gpt2, "random", 0.5, 4)

    def test_a_model_under_hooks_that_is_here_whole_is_shrunk(self, gpt2):
        accelerate = pytest.importorskip("accelerate")
        masks = random_masks(gpt2)
        ids = torch.arange(5, 15)[None]
        want = gl.shrink(gpt2, masks)(ids).logits
        accelerate.hooks.add_hook_to_module(
            gpt2, accelerate.hooks.AlignDevicesHook(execution_device="cpu")
        )
        small = gl.shrink(gpt2, masks)
        assert torch.equal(small(ids).logits, want)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("name", ["gpt2", "llama"])
    def test_every_float_is_pruned_refitted_and_saved_as_it_is(
        self, name, dtype, tokenizer, task, tmp_path
    ):
        model = tiny(name).to(dtype)
        exact = copy.deepcopy(model).double()
        options = {"keep": 0.5, "refit": True}
        small = gl.prune(model, "magnitude", tokenizer, task, **options)
        want = gl.prune(exact, "magnitude", tokenizer, task, **options)
        assert {weight.dtype for weight in small.parameters()} == {dtype}
        tolerance = {torch.float16: 0.02, torch.bfloat16: 0.2, torch.float64: 1e-5}[dtype]
        for ours, theirs in zip(small.parameters(), want.parameters(), strict=True):
            assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max()
        ids = torch.arange(5, 15)[None]
        masks = random_masks(model)
        with gl.gate(model, masks):
            gated = model(ids).logits
        tolerance = {torch.float16: 1e-2, torch.bfloat16: 1e-1, torch.float64: 1e-9}[dtype]
        torch.testing.assert_close(
            gl.shrink(model, masks)(ids).logits, gated, rtol=tolerance, atol=tolerance
        )
        folder = gl.save(small, tokenizer, tmp_path / "model")
        loaded, _ = gl.load(folder, device="cpu", dtype="auto")
        for ours, theirs in zip(loaded.parameters(), small.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_norms_of_another_type_stay_in_it(self, tokenizer, task, tmp_path):
        model = tiny("gemma3_text").bfloat16()
        norms = [name for name, _ in model.named_parameters() if "norm" in name]
        for name in norms:
            module = model.get_submodule(name.rpartition(".")[0])
            module.float()
        ids = torch.arange(5, 15)[None]
        masks = random_masks(model, equal=False)
        with gl.gate(model, masks):
            gated = model(ids).logits
        small = gl.shrink(model, masks)
        torch.testing.assert_close(small(ids).logits, gated, rtol=0.1, atol=0.1)
        pruned = gl.prune(model, "wanda", tokenizer, task, keep=0.5)
        want = {name: weight.dtype for name, weight in model.named_parameters()}
        assert set(want.values()) == {torch.float32, torch.bfloat16}
        for one in (small, pruned):
            assert {name: weight.dtype for name, weight in one.named_parameters()} == want
        folder = gl.save(pruned, tokenizer, tmp_path / "model")
        loaded, _ = gl.load(folder, device="cpu")  # in float32, which holds both exactly
        for ours, theirs in zip(loaded.parameters(), pruned.parameters(), strict=True):
            assert torch.equal(ours, theirs.float())


def flattened(model: nn.Module) -> nn.Module:
    """A model whose parameters are views of one flat buffer."""
    parameters = list(model.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return model


class TestSharedWeights:
    """One parameter in two places (transformers 43459, nni 5277), and what looks like it."""

    @pytest.mark.parametrize("in_place", [True, False])
    @pytest.mark.parametrize("name", ["gpt2", "llama", "phi3"])
    def test_views_of_one_buffer_are_cut_and_saved(self, name, in_place, tokenizer, tmp_path):
        model = flattened(tiny(name))
        masks = random_masks(model, equal=False)
        ids = torch.arange(5, 15)[None]
        with gl.gate(model, masks):
            gated = model(ids).logits
        small = gl.shrink(model, masks, in_place=in_place)
        torch.testing.assert_close(small(ids).logits, gated, rtol=1e-4, atol=1e-5)
        loaded, _ = gl.load(gl.save(small, tokenizer, tmp_path / "model"), device="cpu")
        assert torch.equal(loaded(ids).logits, small(ids).logits)

    def test_views_of_one_buffer_are_saved_uncut(self, tokenizer, tmp_path):
        model = flattened(tiny("llama"))
        ids = torch.arange(5, 15)[None]
        loaded, _ = gl.load(gl.save(model, tokenizer, tmp_path / "model"), device="cpu")
        assert torch.equal(loaded(ids).logits, model(ids).logits)

    @pytest.mark.parametrize("refit", [True, False])
    @pytest.mark.parametrize("in_place", [True, False])
    def test_gate_and_up_that_are_one_map_are_cut_once(self, in_place, refit, tokenizer, task):
        model = tiny("llama")
        apart = tiny("llama")
        for tied, twin in zip(model.model.layers, apart.model.layers, strict=True):
            for key in ("weight", "bias"):
                setattr(tied.mlp.up_proj, key, getattr(tied.mlp.gate_proj, key))
                getattr(twin.mlp.up_proj, key).data = getattr(tied.mlp.gate_proj, key).data.clone()
        masks = random_masks(model, equal=False)
        ids = torch.arange(5, 15)[None]
        options = {"in_place": in_place, "refit": refit}
        small, want = (gl.shrink(one, masks, tokenizer, task, **options) for one in (model, apart))
        assert torch.equal(small(ids).logits, want(ids).logits)
        mlp = small.model.layers[0].mlp
        assert mlp.up_proj.weight is mlp.gate_proj.weight
        assert mlp.up_proj.weight.shape == (7, D)

    @pytest.mark.parametrize("name", ["gpt2", "llama"])
    def test_the_tie_of_embedding_and_head_lasts(self, name, tokenizer, tmp_path):
        model = tiny(name, tie_word_embeddings=True)
        for in_place in (False, True):
            small = gl.shrink(model, random_masks(model), in_place=in_place)
            head = small.get_output_embeddings().weight
            assert head is small.get_input_embeddings().weight
            loaded, _ = gl.load(gl.save(small, tokenizer, tmp_path / "model"), device="cpu")
            assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight

    @pytest.mark.parametrize("key", ["weight", "bias"])
    def test_a_map_s_numbers_in_another_place_are_named(self, key, gpt2):
        gpt2.probe = nn.Linear(D, N)
        setattr(gpt2.probe, key, getattr(neurons(gpt2)[1].fc[0], key))
        with pytest.raises(gl.GumlabError, match=r"probe and .*h\.1\.mlp share their weights"):
            gl.shrink(gpt2, random_masks(tiny("gpt2")))

    def test_a_bias_that_two_layers_share_is_named(self, gpt2):
        first, second = neurons(gpt2)
        second.fc[0].bias = first.fc[0].bias
        with pytest.raises(gl.GumlabError, match=r"share their weights"):
            gl.neurons(gpt2)

    def test_one_map_in_and_out_is_named(self):
        model = tiny("gpt2", n_inner=D)
        block = model.transformer.h[0].mlp
        block.c_proj.weight = block.c_fc.weight
        with pytest.raises(gl.GumlabError, match=r"h\.0\.mlp leads into .* by the same weights"):
            gl.neurons(model)


def test_places_name_every_number_of_a_neuron_once(gpt2):
    layer: FeedForward = neurons(gpt2)[0]
    assert layer.parameters_per_neuron() == 2 * D + 1
    mlp = tiny("llama").model.layers[0].mlp
    mlp.up_proj.weight, mlp.up_proj.bias = mlp.gate_proj.weight, mlp.gate_proj.bias
    tied = FeedForward("mlp", (mlp.gate_proj, mlp.up_proj), mlp.down_proj)
    assert tied.parameters_per_neuron() == 2 * D + 1
