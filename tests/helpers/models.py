"""Tiny random models of every architecture, and what tests ask of any model."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import gumlab as gl
from gumlab.feedforward import FeedForward, is_conv1d, neurons

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

D, N, LAYERS, VOCAB, CONTEXT = 16, 24, 2, 64, 64
PLAIN = ("gpt2", "gpt_neo", "opt", "gpt_neox", "gptj")
GATED = ("llama", "phi3", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2")
ARCHITECTURES = (*PLAIN, *GATED)
# one of each storage of a block: Conv1D, Linear, gated, gate and up in one matrix; and one that
# differs around the block (its norms, its scaled embeddings, a sliding window)
KINDS = ("gpt2", "opt", "llama", "phi3", "gemma3_text")
EXPERTS = ("mixtral", "qwen3_moe", "olmoe")
_SHARED = {"vocab_size": VOCAB, "bos_token_id": 2, "eos_token_id": 0, "pad_token_id": 1}
_LONG = {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
_CONTEXT = {"max_position_embeddings": CONTEXT}
_SHORT = {"n_embd": D, "n_layer": LAYERS, "n_head": 2, "n_inner": N, "n_positions": CONTEXT}
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_GPT_NEO = {"hidden_size": D, "num_layers": LAYERS, "num_heads": 2, "window_size": 8}
_OPT = {"ffn_dim": N, "word_embed_proj_dim": D, "dropout": 0.0, "tie_word_embeddings": True}
_LLAMA = {"intermediate_size": N, "mlp_bias": True, "num_key_value_heads": 1}
_GROUPED = _LONG | _CONTEXT | {"intermediate_size": N, "num_key_value_heads": 1, "head_dim": 8}
_PHI3 = {"intermediate_size": N, "original_max_position_embeddings": CONTEXT}
_CONFIGS = {
    "gpt2": ("GPT2Config", _SHORT | _NO_DROPOUT),
    "gpt_neo": (
        "GPTNeoConfig",
        _GPT_NEO
        | _CONTEXT
        | {"intermediate_size": N, "attention_types": [[["global", "local"], 1]]},
    ),
    "llama": ("LlamaConfig", _LONG | _CONTEXT | _LLAMA),
    "opt": ("OPTConfig", _LONG | _CONTEXT | _OPT),
    "gpt_neox": ("GPTNeoXConfig", _LONG | _CONTEXT | {"intermediate_size": N}),
    "gptj": ("GPTJConfig", _SHORT | _NO_DROPOUT | {"rotary_dim": 4}),
    "phi3": ("Phi3Config", _LONG | _CONTEXT | _PHI3),
    "mistral": ("MistralConfig", _GROUPED),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _GROUPED),
    "gemma": ("GemmaConfig", _GROUPED),
    "gemma2": ("Gemma2Config", _GROUPED),
    "gemma3_text": ("Gemma3TextConfig", _GROUPED | {"sliding_window": 8}),
    "olmo2": ("Olmo2Config", _GROUPED),
    "mixtral": ("MixtralConfig", _GROUPED | {"num_local_experts": 2}),
    "qwen3_moe": ("Qwen3MoeConfig", _GROUPED | {"num_experts": 2, "num_experts_per_tok": 1}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        _GROUPED
        | {"num_experts": 2, "num_experts_per_tok": 1, "shared_expert_intermediate_size": N},
    ),
    "olmoe": ("OlmoeConfig", _GROUPED | {"num_experts": 2, "num_experts_per_tok": 1}),
    "bloom": ("BloomConfig", {"hidden_size": D, "n_layer": LAYERS, "n_head": 2}),
    "phi": ("PhiConfig", _LONG | _CONTEXT | {"intermediate_size": N}),
    "bitnet": ("BitNetConfig", _GROUPED),
}


# for what depends on how an architecture names, stores or wraps its blocks
every_architecture = pytest.mark.parametrize("model", ARCHITECTURES, indirect=True)


def tiny(name: str, seed: int = 0, dtype: torch.dtype = torch.float32, **config) -> nn.Module:
    """A random model, every weight and bias about 0.3, so that each of them shows in the logits."""
    kind, values = _CONFIGS[name]
    made = getattr(transformers, kind)(**(_SHARED | values | config))
    model = transformers.AutoModelForCausalLM.from_config(made)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        noise = 0.3 * torch.randn(parameter.shape, generator=generator)
        is_norm_weight = parameter.ndim == 1 and key.endswith("weight")
        parameter.data = (noise + 1 if is_norm_weight else noise).to(dtype)
    return model.eval()


def linear_twin(model: nn.Module) -> nn.Module:
    """A copy of a GPT-2 with every Conv1D replaced by the nn.Linear that computes the same."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                linear = nn.Linear(child.nx, child.nf).to(child.weight.dtype)
                linear.weight.data, linear.bias.data = (
                    child.weight.data.T.clone(),
                    child.bias.data.clone(),
                )
                setattr(parent, name, linear)
    return twin


def loss_of(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross entropy of the labelled tokens, in the model's own precision."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    )


def logits_of(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits at the real tokens, (tokens, V), without gradient."""
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        return model.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits[real]


def activations(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """h of every layer as it enters proj, (B, T, N), by hooks of our own."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.proj.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].detach()))
        for layer in neurons(model)
    ]
    logits_of(model, batch)
    for hook in hooks:
        hook.remove()
    return seen


def neuron_weights(layer: FeedForward, bias: bool = True) -> list[tuple[nn.Parameter, int, int]]:
    """(parameter, dim, offset) of all that belongs to a neuron: i sits at offset + i along dim.

    Written out by hand, as an oracle for what `feedforward` finds.
    """
    found = []
    for module in layer.fc:
        dim = 1 if is_conv1d(module) else 0
        for offset in range(0, module.weight.shape[dim], layer.width):
            found.append((module.weight, dim, offset))
            if bias and module.bias is not None:
                found.append((module.bias, 0, offset))
    return [*found, (layer.proj.weight, 0 if is_conv1d(layer.proj) else 1, 0)]


def permuted(model: nn.Module, orders: list[torch.Tensor]) -> nn.Module:
    """A copy in which neuron i of layer l is the original's neuron orders[l][i]."""
    twin = copy.deepcopy(model)
    for layer, order in zip(neurons(twin), orders, strict=True):
        for parameter, dim, offset in neuron_weights(layer):
            block = parameter.data.narrow(dim, offset, layer.width)
            block.copy_(block.index_select(dim, order).clone())
    return twin


def hooks_of(model: nn.Module) -> int:
    """How many forward hooks a model carries."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def random_masks(model: nn.Module, equal: bool = True, seed: int = 1) -> list[torch.Tensor]:
    """Masks of random neurons: 11 in every layer, or 7, 11, ... so that no two layers are alike."""
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(layer.width, generator=generator) for layer in neurons(model)]
    return gl.select(scores, widths=[11 if equal else 7 + 4 * i for i in range(len(scores))])
