"""One view of a block's neurons: the same figures whatever the architecture stores."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from helpers.models import (
    ARCHITECTURES,
    EXPERTS,
    GATED,
    LAYERS,
    VOCAB,
    D,
    N,
    activations,
    every_architecture,
    linear_twin,
    logits_of,
    neuron_weights,
    tiny,
)
from helpers.texts import one_batch
from torch import nn
from transformers.activations import ACT2FN

import gumlab as gl
from gumlab.feedforward import neurons


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_shows_its_neurons(name):
    layers = neurons(tiny(name))
    assert [layer.width for layer in layers] == [N] * LAYERS
    gated, fused = name in GATED, name == "phi3"
    biased = name not in GATED or name == "llama"  # the tiny Llama has mlp_bias
    for layer in layers:
        assert (layer.gated, layer.fused) == (gated, fused)
        assert layer.incoming().shape == (N, 2 * D if gated else D)
        assert layer.outgoing().shape == (N, D)
        bias = layer.incoming_bias()
        assert bias.shape == (N, 2 if gated else 1) if biased else bias is None
        assert layer.parameters_per_neuron() * N == sum(
            p.narrow(dim, offset, N).numel() for p, dim, offset in neuron_weights(layer)
        )
        assert f"{N} neurons" in repr(layer)


@every_architecture
def test_incoming_and_outgoing_compute_the_block(model, tokenizer, examples):
    """h W_out and act(x W_in^T + b), from the views alone, are what the block computes."""
    layer, seen = neurons(model)[0], {}
    layer.fc[0].register_forward_pre_hook(lambda m, x: seen.update(x=x[0]))
    layer.proj.register_forward_hook(lambda m, x, y: seen.update(h=x[0], y=y))
    activations(model, one_batch(model, tokenizer, examples))
    x, h, y = (seen[k].flatten(0, -2) for k in "xhy")
    bias = 0 if layer.proj.bias is None else layer.proj.bias
    torch.testing.assert_close(h @ layer.outgoing() + bias, y)
    rows = layer.incoming().split(D, dim=1)
    offsets = layer.incoming_bias()
    z = [x @ r.T + (0 if offsets is None else offsets[:, i]) for i, r in enumerate(rows)]
    activation = next(
        m for m in model.modules() if "Activation" in type(m).__name__ or isinstance(m, ACTIVATIONS)
    )
    torch.testing.assert_close(activation(z[0]) * (z[1] if len(z) == 2 else 1), h)


ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, type(ACT2FN["gelu_pytorch_tanh"]))


@every_architecture
def test_gradients_have_the_shape_of_the_weights(model, tokenizer, examples):
    layer = neurons(model)[0]
    with pytest.raises(gl.GumlabError, match="no gradient yet"):
        layer.incoming(grad=True)
    batch = one_batch(model, tokenizer, examples)
    model(**batch).loss.backward()
    by_hand = sum(
        (p * p.grad).narrow(dim, offset, N).movedim(dim, 0).reshape(N, -1).sum(1)
        for p, dim, offset in neuron_weights(layer, bias=False)
    )
    ours = (layer.incoming() * layer.incoming(grad=True)).sum(1)
    ours = ours + (layer.outgoing() * layer.outgoing(grad=True)).sum(1)
    torch.testing.assert_close(ours, by_hand)


def test_conv1d_and_linear_show_the_same_neurons(gpt2):
    for ours, twins in zip(neurons(gpt2), neurons(linear_twin(gpt2)), strict=True):
        assert torch.equal(ours.incoming(), twins.incoming())
        assert torch.equal(ours.outgoing(), twins.outgoing())
        assert torch.equal(ours.incoming_bias(), twins.incoming_bias())


@every_architecture
def test_replacements_take_neurons_and_pad_with_zeros(model):
    layer = neurons(model)[0]
    index = torch.tensor([5, 2, N, N + 3])
    new = layer.replacements(index)
    for parameter, dim, offset in neuron_weights(layer):
        part = 4 * (offset // N)
        taken = new[parameter].narrow(dim, part, 4)
        assert torch.equal(taken.narrow(dim, 0, 2), parameter.index_select(dim, index[:2] + offset))
        assert not taken.narrow(dim, 2, 2).any()
    assert layer.width == N
    assert layer.proj.bias is None or layer.proj.bias not in new


@pytest.mark.parametrize("name", EXPERTS)
def test_a_mixture_of_experts_is_refused_with_what_was_found(name):
    found = rf"2 layers of {name.split('_')[0].title()}.*, found 0 \(model.layers.0.mlp.experts\)"
    with pytest.raises(gl.GumlabError, match=rf"(?i){found}.* holds mlp \(\w+ .*experts.*mixtures"):
        gl.neurons(tiny(name))


def test_a_model_s_own_adapters_are_no_blocks():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
    config = transformers.XmodConfig(**sizes, is_decoder=True, languages=["en_XX"])
    with pytest.raises(gl.GumlabError, match=r"2 layers of XmodForCausalLM, found 0 \(none\)"):
        gl.neurons(transformers.XmodForCausalLM(config))


def test_a_block_that_goes_past_its_last_map_is_refused():
    assert len(gl.neurons(tiny("bloom", pretraining_tp=2))) == len(gl.neurons(tiny("bloom")))
    with pytest.raises(gl.GumlabError, match=r"h.0.mlp multiplies by slices .*slow_but_exact=Fal"):
        gl.neurons(tiny("bloom", pretraining_tp=2, slow_but_exact=True))


def test_a_shared_block_beside_experts_is_refused_too():
    """The block that all tokens pass is of a known structure, but is not all of the layer."""
    with pytest.raises(gl.GumlabError, match=r"found 2 \(.*shared_expert.*mixtures of experts"):
        gl.neurons(tiny("qwen2_moe"))


def test_a_norm_over_the_neurons_is_refused_with_what_was_found():
    """BitNet divides h by its own size before proj, so that no neuron can leave alone."""
    with pytest.raises(gl.GumlabError, match=r"found 0 \(none\).* mlp \(BitNetMLP .*sub_norm\)"):
        gl.neurons(tiny("bitnet"))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.back, self.there = nn.Linear(23, D, bias=False), nn.Linear(D, 23)  # out comes first

    def forward(self, x):
        return self.back(self.there(x).tanh())


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.channels, self.extra = nn.LayerNorm(D), Mixer(), nn.Identity()

    def forward(self, x):
        return self.extra(x + self.channels(self.norm(x)))


class Stranger(nn.Module):
    """A model of names that no library has, 23 neurons a layer, and a config with no width."""

    def __init__(self):
        super().__init__()
        self.config = transformers.PretrainedConfig(hidden_size=D, num_hidden_layers=2)
        self.table, self.stages = nn.Embedding(VOCAB, D), nn.ModuleList([Stage(), Stage()])

    def forward(self, input_ids, attention_mask=None):
        x = self.table(input_ids)
        for stage in self.stages:
            x = stage(x)
        return SimpleNamespace(logits=x @ self.table.weight.T)


def test_an_unknown_model_of_the_same_structure_works_untouched(tokenizer, task):
    model, batch = Stranger(), one_batch(tiny("gpt2"), tokenizer, task.test)
    layers = gl.neurons(model)
    assert [(n.name, n.width) for n in layers] == [(f"stages.{i}.channels", 23) for i in (0, 1)]
    assert all(n.proj is stage.channels.back for n, stage in zip(layers, model.stages, strict=True))
    for method in ("magnitude", "wanda", "obs"):
        masks = gl.select(gl.score(model, method, tokenizer, task), 0.4, scope="global")
        small = gl.shrink(model, masks)
        assert [n.width for n in gl.neurons(small)] == [int(m.sum()) for m in masks]
        handles = gl.gate(model, masks)
        gated = logits_of(model, batch)
        torch.testing.assert_close(logits_of(small, batch), gated, rtol=1e-4, atol=1e-5)
        for handle in handles:
            handle.remove()
        assert not torch.allclose(logits_of(model, batch), gated, atol=1e-4)


def test_an_unknown_block_is_refused_with_what_was_found():
    model = Stranger()
    model.stages[0].channels.third = nn.Linear(D, 7)
    with pytest.raises(
        gl.GumlabError,
        match=r"2 layers of Stranger, found 1 \(stages.1.channels\); stages.0, a Stage, holds "
        r"norm \(LayerNorm\), channels \(Mixer back there third\), extra \(Identity\)",
    ):
        gl.neurons(model)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(gl.GumlabError, match="Sequential, found 0"):
        gl.neurons(nn.Sequential(nn.Linear(4, 4)))
