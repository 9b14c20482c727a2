"""One view of a block's neurons: the same figures whatever the architecture stores."""

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LAYERS,
    D,
    N,
    activations,
    linear_twin,
    neuron_weights,
    one_batch,
    tiny,
)
from torch import nn

import gumlab as gl
from gumlab.feedforward import neurons


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_shows_its_neurons(name):
    layers = neurons(tiny(name))
    assert [layer.width for layer in layers] == [N] * LAYERS
    gated, fused = name in ("llama", "phi3"), name == "phi3"
    for layer in layers:
        assert (layer.gated, layer.fused) == (gated, fused)
        assert layer.incoming().shape == (N, 2 * D if gated else D)
        assert layer.outgoing().shape == (N, D)
        bias = layer.incoming_bias()
        assert (bias is None) if fused else bias.shape == (N, 2 if gated else 1)
        assert layer.parameters_per_neuron() * N == sum(
            p.narrow(dim, offset, N).numel() for p, dim, offset in neuron_weights(layer)
        )
        assert f"{N} neurons" in repr(layer)


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
        m for m in model.modules() if "Activation" in type(m).__name__ or type(m) in ACTIVATIONS
    )
    torch.testing.assert_close(activation(z[0]) * (z[1] if len(z) == 2 else 1), h)


ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU)


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


def test_a_mixture_of_experts_is_refused_with_what_was_found():
    with pytest.raises(
        gl.GumlabError, match=r"2 layers of MixtralForCausalLM, found 0 \(none\).*mixtures"
    ):
        gl.neurons(tiny("mixtral"))


def test_a_model_without_blocks_is_refused():
    with pytest.raises(gl.GumlabError, match="Sequential, found 0"):
        gl.neurons(nn.Sequential(nn.Linear(4, 4)))
