"""Adapters (peft) on pruned models, and weights that are no plain floats.

huggingface/peft 1746, huggingface/transformers 23401, vllm-project/llm-compressor 142.
"""

from __future__ import annotations

import copy
import functools
import json

import peft
import pytest
import torch
import transformers
from helpers.models import random_masks, tiny
from helpers.texts import make_examples
from torch import nn
from torch.nn.utils import parametrizations

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.io.diagnosis import doctor
from gumlab.tasks.batches import batches
from gumlab.trainer import PruningCallback

IDS = torch.arange(4, 24)[None]
MAPS = {
    "llama": ["gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_fc", "mlp.c_proj"],
    "phi3": ["gate_up_proj", "down_proj"],
}
ATTENTION = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"], "phi3": ["qkv_proj"]}

# peft says that it follows GPT-2's Conv1D by itself
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")


def lora(name: str, maps: bool = True, **options) -> peft.LoraConfig:
    """LoRA on attention, and on the feed-forward maps too."""
    targets = ATTENTION[name] + (MAPS[name] if maps else [])
    return peft.LoraConfig(task_type="CAUSAL_LM", target_modules=targets, r=4, **options)


def with_lora(name: str, maps: bool = True) -> peft.PeftModel:
    """A tiny model with an adapter, the same at every call."""
    torch.manual_seed(0)
    return peft.get_peft_model(tiny(name), lora(name, maps))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def train(model, tokenizer, steps: int = 12, **options) -> list[float]:
    history = gl.train(
        model, tokenizer, make_examples(12), steps=steps, lr=1e-2, progress=False, **options
    )
    return history.losses


def train_by_hand(model, tokenizer) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for batch in list(batches(model.train(), tokenizer, make_examples(12), 4)) * 4:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trainer_of(model, tokenizer, callbacks=(), **options) -> transformers.Trainer:
    """Hugging Face's Trainer, in this folder."""
    rows = next(batches(model, tokenizer, make_examples(12), 12))
    data = [{key: value[i] for key, value in rows.items()} for i in range(12)]
    arguments = transformers.TrainingArguments(
        output_dir="trainer",
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return transformers.Trainer(model, arguments, train_dataset=data, callbacks=list(callbacks))


def train_by_trainer(model, tokenizer) -> list[float]:
    trainer = trainer_of(model, tokenizer, max_steps=12, save_strategy="no")
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


class TestHealing:
    """LoRA heals a pruned model, of equal and of unequal widths."""

    @pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")  # Trainer, no GPU
    @pytest.mark.parametrize("run", [train, train_by_hand, train_by_trainer])
    @pytest.mark.parametrize("equal", [True, False])
    @pytest.mark.parametrize("name", MAPS)
    def test_from_the_pruned_folder_to_the_healed_one(
        self, name, equal, run, tokenizer, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        dense = tiny(name)
        small = gl.shrink(dense, random_masks(dense, equal))
        gl.save(small, tokenizer, "pruned")

        base, _ = gl.load("pruned", device="cpu")
        before = {key: value.clone() for key, value in base.state_dict().items()}
        healing = peft.get_peft_model(base, lora(name))
        losses = run(healing, tokenizer)
        assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
        want = logits(healing)
        healing.save_pretrained("adapter")
        assert (
            json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())[
                "base_model_name_or_path"
            ]
            == "pruned"
        )

        again, _ = gl.load("pruned", device="cpu")
        assert all(torch.equal(before[key], value) for key, value in again.state_dict().items())
        loaded = peft.PeftModel.from_pretrained(again, "adapter")
        assert torch.equal(logits(loaded), want)
        healed = loaded.merge_and_unload()
        torch.testing.assert_close(logits(healed), want, rtol=1e-4, atol=1e-5)
        assert type(healed) is type(dense)

        gl.save(healed, tokenizer, "healed")
        back, _ = gl.load("healed", device="cpu")
        assert torch.equal(logits(back), logits(healed))
        widths = [11, 11] if equal else [7, 11]
        assert [layer.width for layer in neurons(back)] == widths
        report = doctor("healed")
        assert report.widths == report.in_use == widths
        assert all(finding.good for finding in report.findings)
        card = (tmp_path / "healed" / "README.md").read_text()
        assert f"by layer: {widths[0]}, {widths[1]}." in card

    def test_a_padded_model_is_healed_and_its_padding_may_come_to_life(self, tokenizer, tmp_path):
        """An adapter writes into the padding too; what doctor says follows the weights."""
        dense = tiny("llama")
        gl.save(gl.shrink(dense, random_masks(dense, False)), tokenizer, tmp_path / "p", pad=True)
        base, _ = gl.load(tmp_path / "p", device="cpu")
        healing = peft.get_peft_model(base, lora("llama"))
        train(healing, tokenizer)
        want = logits(healing)
        gl.save(healing.merge_and_unload(), tokenizer, tmp_path / "healed")
        back, _ = gl.load(tmp_path / "healed", device="cpu")
        torch.testing.assert_close(logits(back), want, rtol=1e-4, atol=1e-5)
        assert doctor(tmp_path / "healed").in_use == [11, 11]


class TestWhatTakesAnAdaptedModel:
    """gumlab's functions and peft's models (huggingface/peft 1746)."""

    @pytest.mark.parametrize("maps", [True, False])
    def test_train_and_evaluate_do(self, maps, tokenizer, task):
        model = with_lora("llama", maps)
        frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
        losses = train(model, tokenizer)
        assert losses[-1] < losses[0]
        assert all(torch.equal(model.get_parameter(name), p) for name, p in frozen.items())
        found = gl.evaluate(model, tokenizer, task)
        merged = copy.deepcopy(model).merge_and_unload()
        want = gl.evaluate(merged, tokenizer, task)
        assert found == pytest.approx(want, rel=1e-4)

    def test_measure_counts_what_an_adapter_adds(self):
        dense = gl.measure(tiny("llama"), latency=False)
        found = gl.measure(with_lora("llama", maps=False), latency=False)
        # r (in + out) of q: 16 to 16, and of v: 16 to 8, in two layers
        added = 2 * (4 * (16 + 16) + 4 * (16 + 8))
        assert found["parameters"] == dense["parameters"] + added
        assert found["flops_per_token"] == dense["flops_per_token"] + 2 * added
        assert found["widths"] == [24, 24]

    def test_with_adapters_on_attention_neurons_are_cut_and_the_adapter_stays(
        self, tokenizer, task, tmp_path
    ):
        model = with_lora("llama", maps=False)
        train(model, tokenizer)
        masks = gl.select(gl.score(model, "wanda", tokenizer, task), 0.5, scope="global")
        merged = copy.deepcopy(model).merge_and_unload()
        small = gl.shrink(model, masks)
        assert isinstance(small, peft.PeftModel)
        with gl.gate(model, masks):
            torch.testing.assert_close(logits(small), logits(model))
        want = logits(gl.shrink(merged, masks))
        torch.testing.assert_close(logits(small.merge_and_unload()), want)

    @pytest.mark.parametrize(
        "config",
        [
            lora("llama"),
            lora("llama", use_dora=True),
            lora("llama", layers_to_transform=[1]),
            peft.LoHaConfig(target_modules=MAPS["llama"], r=2),
            peft.IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]),
            lora("llama", False, modules_to_save=["mlp"]),
            lora("llama", False, target_parameters=["mlp.down_proj.weight"]),
        ],
        ids=["lora", "dora", "of one layer", "loha", "ia3", "modules_to_save", "parameters"],
    )
    @pytest.mark.parametrize(
        "use",
        [
            gl.neurons,
            lambda model: gl.score(model, "magnitude"),
            lambda model: gl.shrink(model, [torch.arange(24) < 11] * 2),
            lambda model: gl.gate(model, [torch.arange(24) < 11] * 2),
            lambda model: gl.Pruner(model, "movement", 0.5, 5, gradient="gate"),
            lambda model: gl.Pruner(model.get_base_model(), "random", 0.5, 5),
            lambda model: gl.measure(model, latency=False),
            lambda model: gl.save(model, None, "nowhere"),
        ],
    )
    def test_an_adapter_on_the_neurons_is_named(self, use, config):
        model = peft.get_peft_model(tiny("llama"), config)
        with pytest.raises(gl.GumlabError, match=r"layers\.[01]\.mlp.* carries an adapter.*merge_"):
            use(model)
        plain = model.unload()
        assert [layer.width for layer in neurons(plain)] == [24, 24]

    def test_an_adapter_is_one_also_merged_disabled_or_second(self):
        model = with_lora("llama")
        model.add_adapter("second", lora("llama"))
        with model.disable_adapter(), pytest.raises(gl.GumlabError, match="carries an adapter"):
            gl.neurons(model)
        model.merge_adapter()
        with pytest.raises(gl.GumlabError, match="carries an adapter"):
            gl.neurons(model)

    def test_the_second_of_two_adapters_is_merged_when_it_is_the_active_one(
        self, tokenizer, tmp_path
    ):
        model = with_lora("llama")
        model.add_adapter("second", lora("llama"))
        model.set_adapter("second")
        train(model, tokenizer)
        want = logits(model)
        gl.save(model.merge_and_unload(), tokenizer, tmp_path / "merged")
        back, _ = gl.load(tmp_path / "merged", device="cpu")
        torch.testing.assert_close(logits(back), want, rtol=1e-4, atol=1e-5)

    def test_an_adapter_that_transformers_put_in_is_merged_as_the_sentence_says(self, tmp_path):
        base = tiny("llama")
        model = copy.deepcopy(base)
        model.add_adapter(lora("llama", init_lora_weights=False))
        with pytest.raises(gl.GumlabError, match=r"model\.add_adapter made: save it, and take"):
            gl.neurons(model)
        model.save_pretrained(tmp_path)
        merged = peft.PeftModel.from_pretrained(base, tmp_path).merge_and_unload()
        torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-5)
        assert len(gl.neurons(merged)) == 2

    @pytest.mark.parametrize("put_in", ["peft", "transformers"])
    def test_save_says_how_an_adapted_model_is_saved(self, put_in, tokenizer, tmp_path):
        if put_in == "peft":
            model = with_lora("llama", maps=False)
        else:  # its own save_pretrained would write the adapter alone
            model = tiny("llama")
            model.add_adapter(lora("llama", maps=False))
        with pytest.raises(gl.GumlabError, match=r"holds an adapter of peft.*merge_and_unload\(\)"):
            gl.save(model, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "config",
        [
            peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
            peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        ],
        ids=["prompt", "prefix"],
    )
    def test_virtual_tokens_are_refused_before_the_work(self, config, tokenizer, task):
        model = peft.get_peft_model(tiny("llama"), config)
        before = copy.deepcopy(model.state_dict())
        for use in (
            lambda: train(model, tokenizer),
            lambda: gl.evaluate(model, tokenizer, task),
            lambda: gl.measure(model, latency=False),
            lambda: gl.prune(model, "wanda", tokenizer, task),
        ):
            with pytest.raises(gl.GumlabError, match=r"virtual tokens.*get_base_model\(\)"):
                use()
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert gl.evaluate(model.get_base_model(), tokenizer, task)["loss"] > 0

    def test_an_adapter_that_was_loaded_to_be_used_is_not_trained(self, tokenizer, tmp_path):
        with_lora("llama").save_pretrained(tmp_path)
        model = peft.PeftModel.from_pretrained(tiny("llama"), tmp_path)
        with pytest.raises(gl.GumlabError, match=r"Every weight .* frozen"):
            train(model, tokenizer)
        model = peft.PeftModel.from_pretrained(tiny("llama"), tmp_path, is_trainable=True)
        losses = train(model, tokenizer)
        assert losses[-1] < losses[0]

    def test_a_teacher_that_the_adapter_was_put_into_is_refused(self, tokenizer):
        """It gives what its student gives: a distillation loss of 0.0."""
        base = tiny("llama")
        teacher = copy.deepcopy(base)
        student = peft.get_peft_model(base, lora("llama"))
        with pytest.raises(gl.GumlabError, match=r"are one and the same|shares weights"):
            train(student, tokenizer, teacher=base)
        train(student, tokenizer, steps=2)
        assert train(student, tokenizer, steps=1, teacher=teacher, ce_weight=0, kd_weight=1)[0] > 0


def past_the_hooks(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a block of Llama returns, by a call that no hook of its output projection sees."""
    return block.down_proj.forward(block.act_fn(block.gate_proj(x)) * block.up_proj(x))


class TestPruningWhileAnAdapterTrains:
    """All weights are frozen but the adapter's (kinds 03 and 16)."""

    @pytest.mark.parametrize("method", ["movement", "gum", "soft_movement"])
    def test_before_and_after_get_peft_model_is_the_same(self, method, tokenizer):
        runs = []
        for before in (True, False):
            torch.manual_seed(0)
            model = tiny("llama")
            options = {"gradient": "gate"} | ({"gram_every": 1} if method == "gum" else {})
            if before:
                pruner = gl.Pruner(model, method, 0.5, 8, **options)
                model = peft.get_peft_model(model, lora("llama", maps=False))
            else:
                model = peft.get_peft_model(model, lora("llama", maps=False))
                pruner = gl.Pruner(model, method, 0.5, 8, **options)
            runs.append((train(model, tokenizer, 8, pruner=pruner), pruner, model))
        (losses, pruner, model), (other_losses, other, _) = runs
        assert losses == other_losses
        assert all(torch.equal(a, b) for a, b in zip(pruner.masks, other.masks, strict=True))
        assert pruner.fraction_kept < 1
        want = logits(model)
        torch.testing.assert_close(logits(gl.shrink(model, pruner.masks)), want)
        small = gl.shrink(model.merge_and_unload(), pruner.masks)
        torch.testing.assert_close(logits(small), want, rtol=1e-4, atol=1e-5)

    def test_the_gate_s_gradient_is_the_derivative_by_its_mask(self, tokenizer):
        """While every weight of the layers is frozen: compared with a mask of our own."""
        model = with_lora("llama", maps=False).train()
        batch = next(batches(model, tokenizer, make_examples(4), 4))
        pruner = gl.Pruner(model, "movement", 0.5, 8, gradient="gate")
        model(**batch).loss.backward()
        found = [gate.score.grad for gate in pruner.gates]
        pruner.remove()
        masks = [torch.ones(24, requires_grad=True) for _ in range(2)]
        hooks = [
            layer.proj.register_forward_pre_hook(lambda _, x, mask=mask: (x[0] * mask,))
            for layer, mask in zip(neurons(model), masks, strict=True)
        ]
        want = torch.autograd.grad(model(**batch).loss, masks)
        for hook in hooks:
            hook.remove()
        for a, b in zip(found, want, strict=True):
            torch.testing.assert_close(a, b)

    def test_the_weights_gradient_is_said_to_be_missing(self, tokenizer):
        model = with_lora("llama", maps=False)
        with pytest.raises(gl.GumlabError, match=r'frozen .*take gradient="gate"'):
            train(model, tokenizer, 8, pruner=gl.Pruner(model, "movement", 0.5, 8))

    def test_cut_neurons_leave_the_model_and_the_adapter_trains_on(self, tokenizer):
        model = with_lora("llama", maps=False)
        pruner = gl.Pruner(model, "movement", 0.5, 8, gradient="gate", cut=True)
        train(model, tokenizer, 8, pruner=pruner)
        assert [layer.width for layer in neurons(model.merge_and_unload())] == [12, 12]

    @pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")  # Trainer, no GPU
    def test_a_trainer_s_run_goes_on_from_its_checkpoint_of_the_adapter(
        self, tokenizer, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        ends = []
        for resume in (None, "trainer/checkpoint-4"):
            model = with_lora("llama", maps=False)
            pruner = gl.Pruner(model, "movement", 0.5, 8, gradient="gate")
            callback = PruningCallback(pruner, resume)
            trainer = trainer_of(model, tokenizer, [callback], max_steps=8, save_steps=4)
            trainer.train(resume_from_checkpoint=resume)
            ends.append((pruner, logits(model)))
        (whole, want), (resumed, found) = ends
        assert all(torch.equal(a, b) for a, b in zip(whole.masks, resumed.masks, strict=True))
        assert whole.fraction_kept == 0.5
        assert torch.equal(found, want)

    @pytest.mark.parametrize("by_pruner", [True, False])
    def test_an_adapter_around_a_gate_is_refused_before_the_work(self, by_pruner, tokenizer):
        """The adapter is given the neurons that the gate removes: shrink gives other logits."""
        model = tiny("llama")
        pruner = None
        if by_pruner:
            pruner = gl.Pruner(model, "movement", 0.5, 8, gradient="gate")
        else:
            gl.gate(model, random_masks(model))
        adapted = peft.get_peft_model(model, lora("llama"))
        with pytest.raises(gl.GumlabError, match=r"base_layer is gated.*Shrink first"):
            train(adapted, tokenizer, 8, pruner=pruner)

    def test_a_loop_of_one_s_own_notices_at_its_first_step(self, tokenizer):
        model = tiny("llama")
        pruner = gl.Pruner(model, "movement", 0.5, 8, gradient="gate")
        adapted = peft.get_peft_model(model, lora("llama")).train()
        adapted(**next(batches(adapted, tokenizer, make_examples(4), 4))).loss.backward()
        with pytest.raises(gl.GumlabError, match=r"layers\.0\.mlp were wrapped or replaced"):
            pruner.step()
        assert pruner.step_count == 0

    def test_a_forward_pass_past_the_gates_is_noticed_though_the_weights_are_frozen(self):
        model = with_lora("llama", maps=False).train()
        pruner = gl.Pruner(model, "magnitude", 0.5, 8)
        for layer in neurons(model):
            block = model.get_submodule(layer.name)
            block.forward = functools.partial(past_the_hooks, block)
        model(input_ids=IDS, labels=IDS).loss.backward()
        with pytest.raises(gl.GumlabError, match="did not go through the gates"):
            pruner.step()

    @pytest.mark.parametrize("how", ["in eval mode", "past the model's own call"])
    def test_gram_sums_that_saw_nothing_are_noticed(self, how, gpt2):
        """They stayed zero, and GUM's scores with them (older peft calls model.forward)."""
        pruner = gl.Pruner(gpt2, "gum", 0.5, 8)
        if how == "in eval mode":
            gpt2.eval()(input_ids=IDS, labels=IDS).loss.backward()
        else:
            gpt2.train().forward(input_ids=IDS, labels=IDS).loss.backward()
        with pytest.raises(gl.GumlabError, match=r"Gram sums (saw|have) nothing"):
            pruner.step()
        assert pruner.step_count == 0


class Packed(nn.Module):
    """As GPTQ, AWQ and HQQ store a map: eight numbers in one, and scales; no weight."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        shape = (linear.in_features // 8, linear.out_features)
        self.register_buffer("qweight", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("scales", torch.ones(1, linear.out_features))


class Compressed(nn.Linear):
    """As compressed-tensors does: a Linear whose weight is gone."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        del self.weight
        packed = torch.zeros(linear.out_features, linear.in_features // 8, dtype=torch.int32)
        self.weight_packed = nn.Parameter(packed, requires_grad=False)


class WithLowRank(nn.Linear):
    """As loralib does: a Linear that holds its adapter itself."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.lora_A = nn.Parameter(torch.zeros(2, linear.in_features))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, 2))


class FourBit(nn.Linear):
    """As bitsandbytes does: two numbers a byte, in one column."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        half = torch.zeros(linear.weight.numel() // 2, 1, dtype=torch.uint8)
        self.weight = nn.Parameter(half, requires_grad=False)


class Subclass(torch.Tensor):
    """As torchao does: a tensor of another class that says it is float32."""


def stored(change):
    """A way to store every map's weight otherwise."""

    def store(linear: nn.Linear) -> nn.Linear:
        linear.weight = nn.Parameter(change(linear.weight.detach()), requires_grad=False)
        return linear

    return store


def as_subclass(linear: nn.Linear) -> nn.Linear:
    weight = linear.weight.detach().as_subclass(Subclass)
    linear._parameters["weight"] = weight.requires_grad_(False)
    return linear


def of_fine_grained_fp8(linear: nn.Linear) -> nn.Module:
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    return fp8.FP8Linear(linear.in_features, linear.out_features, block_size=(8, 8))


def of_bitnet(linear: nn.Linear) -> nn.Module:
    from transformers.integrations.bitnet import BitLinear

    return BitLinear(linear.in_features, linear.out_features, bias=False)


def of_torch(linear: nn.Linear) -> nn.Module:
    """Dynamically quantised by torch itself: its weight is a method."""
    holder = nn.Sequential(linear)
    quantised = torch.ao.quantization.quantize_dynamic(holder, {nn.Linear}, dtype=torch.qint8)
    return quantised[0]


def in_training_for_int8(linear: nn.Linear) -> nn.Module:
    config = torch.ao.quantization.get_default_qat_qconfig()
    return torch.ao.nn.qat.Linear(linear.in_features, linear.out_features, qconfig=config)


def of_bitsandbytes_8(linear: nn.Linear) -> nn.Module:
    bnb = pytest.importorskip("bitsandbytes")
    made = bnb.nn.Linear8bitLt(linear.in_features, linear.out_features, has_fp16_weights=False)
    made.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False)
    return made.to("cpu")


def of_bitsandbytes_4(linear: nn.Linear) -> nn.Module:
    bnb = pytest.importorskip("bitsandbytes")
    made = bnb.nn.Linear4bit(linear.in_features, linear.out_features)
    made.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False)
    return made.to("cpu")


def of_torchao(linear: nn.Linear) -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(linear, quantization.Int8WeightOnlyConfig())
    return linear


def of_hqq(linear: nn.Linear) -> nn.Module:
    hqq = pytest.importorskip("hqq.core.quantize")
    config = hqq.BaseQuantizeConfig(nbits=4, group_size=8)
    return hqq.HQQLinear(linear, config, compute_dtype=torch.float32, device="cpu")


ODD_WEIGHTS = {  # how a map is stored -> what must be said
    "int8": (stored(lambda w: w.to(torch.int8)), r"are quantised \(Linear, torch.int8\)"),
    "float8 e4m3": (stored(lambda w: w.to(torch.float8_e4m3fn)), "are quantised .*float8_e4m3fn"),
    "float8 e5m2": (stored(lambda w: w.to(torch.float8_e5m2)), "are quantised .*float8_e5m2"),
    "transformers' fp8": (of_fine_grained_fp8, r"are quantised \(FP8Linear, torch.float8_e4m3fn"),
    "transformers' BitNet": (of_bitnet, r"are quantised \(BitLinear, packed\)"),
    "torch's dynamic": (of_torch, r"are quantised \(Linear, packed\)"),
    "in training for int8": (in_training_for_int8, "holds weight_fake_quant beside weight"),
    "packed": (Packed, r"are quantised \(Packed, packed\)"),
    "compressed": (Compressed, r"are quantised \(Compressed, packed\)"),
    "four bits": (FourBit, r"are quantised \(FourBit, torch.uint8\)"),
    "a tensor of another class": (as_subclass, r"are quantised \(Linear, Subclass, torch.float32"),
    "bitsandbytes, 8 bits": (of_bitsandbytes_8, r"are quantised \(Linear8bitLt, Int8Params"),
    "bitsandbytes, 4 bits": (of_bitsandbytes_4, r"are quantised \(Linear4bit, Params4bit"),
    "torchao": (of_torchao, r"are quantised \(Linear, .*Tensor"),
    "hqq": (of_hqq, r"are quantised \(HQQLinear, packed\)"),
    "sparse": (stored(lambda w: w.to_sparse()), r"are sparse .*to_dense\(\)"),
    "sparse rows": (stored(lambda w: w.to_sparse_csr()), r"are sparse .*sparse_csr.*to_dense\(\)"),
    "complex": (stored(lambda w: w.to(torch.complex64)), "are complex .*complex64"),
    "nested": (stored(lambda w: torch.nested.nested_tensor([w[0], w[1]])), "nested|spread over"),
    "weight norm": (parametrizations.weight_norm, "computed from .*remove_parametrizations"),
    "spectral norm": (parametrizations.spectral_norm, "computed from .*remove_parametrizations"),
    "the old weight norm": (torch.nn.utils.weight_norm, "are computed from others"),
    "the old spectral norm": (torch.nn.utils.spectral_norm, "are computed from others"),
    "loralib": (WithLowRank, r"\(WithLowRank\) holds lora_A, lora_B beside weight and bias"),
}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max")
@pytest.mark.filterwarnings("ignore:Please use .new APIs.")
class TestWeightsThatAreNoPlainFloats:
    """They were scored NaN, or not found, or cut in vain (transformers 23401)."""

    @pytest.mark.parametrize("which", ["every map", "the last layer's map out"])
    @pytest.mark.parametrize("kind", ODD_WEIGHTS)
    def test_they_are_named_before_anything_is_touched(self, kind, which):
        change, sentence = ODD_WEIGHTS[kind]
        model = tiny("llama", mlp_bias=False)
        for number, layer in enumerate(model.model.layers):
            for name in MAPS["llama"]:
                if which == "every map" or (number, name) == (1, "down_proj"):
                    setattr(layer.mlp, name, change(getattr(layer.mlp, name)))
        before = {name: id(parameter) for name, parameter in model.named_parameters()}
        masks = [torch.arange(24) < 11] * 2
        for use in (
            lambda: gl.neurons(model),
            lambda: gl.score(model, "magnitude"),
            lambda: gl.prune(model, "magnitude", refit=False),
            lambda: gl.shrink(model, masks, in_place=True),
            lambda: gl.Pruner(model, "magnitude", 0.5, 5),
        ):
            with pytest.raises(gl.GumlabError, match=sentence):
                use()
        assert {name: id(parameter) for name, parameter in model.named_parameters()} == before

    def test_so_are_those_of_a_model_that_is_sharded(self):
        from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

        model = tiny("llama")
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
        try:
            mesh = init_device_mesh("cpu", (1,))
            for layer in neurons(model):
                weight = layer.proj.weight.detach()
                layer.proj.weight = nn.Parameter(distribute_tensor(weight, mesh, [Replicate()]))
            with pytest.raises(gl.GumlabError, match=r"are sharded .*DTensor|are spread over"):
                gl.neurons(model)
        finally:
            torch.distributed.destroy_process_group()

    @pytest.mark.parametrize("bits", [8, 4])
    def test_a_model_that_bitsandbytes_loads_is_refused(self, bits, tmp_path):
        pytest.importorskip("bitsandbytes")
        tiny("llama", hidden_size=64, intermediate_size=64).save_pretrained(tmp_path)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path,
            quantization_config=transformers.BitsAndBytesConfig(
                load_in_8bit=bits == 8, load_in_4bit=bits == 4
            ),
            device_map="cpu",
        )
        with pytest.raises(gl.GumlabError, match=r"layers\.0\.mlp are quantised .*quantise the sm"):
            gl.score(model, "magnitude")

    @pytest.mark.parametrize("kind", ["weight norm", "spectral norm"])
    def test_a_parametrisation_that_was_removed_is_no_matter(self, kind):
        model = tiny("llama")
        proj = model.model.layers[0].mlp.down_proj
        ODD_WEIGHTS[kind][0](proj)
        want = logits(model)
        torch.nn.utils.parametrize.remove_parametrizations(proj, "weight")
        masks = random_masks(model)
        with gl.gate(model, masks):
            gated = logits(model)
        torch.testing.assert_close(logits(gl.shrink(model, masks)), gated)
        torch.testing.assert_close(logits(model), want)

    def test_the_way_out_is_to_quantise_the_smaller_model(self, tokenizer, task):
        model = tiny("llama")
        small = gl.shrink(model, random_masks(model, equal=False))
        quantised = torch.ao.quantization.quantize_dynamic(small, {nn.Linear}, dtype=torch.qint8)
        plain, found = (gl.evaluate(m, tokenizer, task)["loss"] for m in (small, quantised))
        assert found == pytest.approx(plain, rel=0.02)
        assert found != plain

    def test_an_adapter_on_quantised_weights_is_named_first(self):
        """QLoRA: merged first, it is quantised still, which is said then."""
        model = tiny("llama")
        for layer in model.model.layers:
            stored(lambda w: w.to(torch.int8))(layer.mlp.down_proj)
        config = peft.LoraConfig(target_modules=["up_proj"], r=2)
        adapted = peft.get_peft_model(model, config)
        with pytest.raises(gl.GumlabError, match=r"up_proj carries an adapter"):
            gl.neurons(adapted)
        with pytest.raises(gl.GumlabError, match=r"are quantised \(Linear, torch.int8\)"):
            gl.neurons(adapted.merge_and_unload())
