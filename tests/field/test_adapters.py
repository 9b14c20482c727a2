"""Adapters (peft) on pruned models, and weights that are no plain floats.

huggingface/peft 1746, huggingface/transformers 23401, vllm-project/llm-compressor 142.
"""

from __future__ import annotations

import copy
import json

import peft
import pytest
import torch
import transformers
from helpers.models import random_masks, tiny
from helpers.texts import make_examples
from torch import nn

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.io.diagnosis import doctor
from gumlab.tasks.batches import batches

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


def train_by_trainer(model, tokenizer) -> list[float]:
    rows = next(batches(model, tokenizer, make_examples(12), 12))
    data = [{key: value[i] for key, value in rows.items()} for i in range(12)]
    arguments = transformers.TrainingArguments(
        output_dir="trainer",
        max_steps=12,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=data)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


class TestHealing:
    """LoRA heals a pruned model, of equal and of unequal widths."""

    @pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")  # Trainer, no GPU
    @pytest.mark.parametrize("run", [train, train_by_hand, train_by_trainer])
    @pytest.mark.parametrize("equal", [True, False])
    @pytest.mark.parametrize("name", MAPS)
    def test_from_the_pruned_folder_to_the_healed_one(
        self, name, equal, run, tokenizer, tmp_path, monkeypatch, capsys
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
        with pytest.raises(gl.GumlabError, match=r"Every weight .* frozen.*is_trainable=True"):
            train(model, tokenizer)
        model = peft.PeftModel.from_pretrained(tiny("llama"), tmp_path, is_trainable=True)
        losses = train(model, tokenizer)
        assert losses[-1] < losses[0]

    def test_a_teacher_that_the_adapter_was_put_into_is_refused(self, tokenizer):
        """It gives what its student gives: a distillation loss of 0.0."""
        base = tiny("llama")
        teacher = copy.deepcopy(base)
        student = peft.get_peft_model(base, lora("llama"))
        with pytest.raises(gl.GumlabError, match="are one and the same"):
            train(student, tokenizer, teacher=base)
        train(student, tokenizer, steps=2)
        assert train(student, tokenizer, steps=1, teacher=teacher, ce_weight=0, kd_weight=1)[0] > 0


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

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_a_forward_pass_past_the_gates_is_noticed_though_the_weights_are_frozen(self):
        model = with_lora("llama", maps=False).train()
        compiled = torch.compile(model, backend="eager")
        compiled(input_ids=IDS, labels=IDS).loss.backward()
        pruner = gl.Pruner(model, "magnitude", 0.5, 8)
        compiled(input_ids=IDS, labels=IDS).loss.backward()
        with pytest.raises(gl.GumlabError, match="did not go through the gates"):
            pruner.step()
        torch._dynamo.reset()

    @pytest.mark.parametrize("how", ["in eval mode", "past the model's own call"])
    def test_gram_sums_that_saw_nothing_are_noticed(self, how, gpt2):
        """They stayed zero, and GUM's scores with them (older peft calls model.forward)."""
        pruner = gl.Pruner(gpt2, "gum", 0.5, 8)
        if how == "in eval mode":
            gpt2.eval()(input_ids=IDS, labels=IDS).loss.backward()
        else:
            gpt2.train().forward(input_ids=IDS, labels=IDS).loss.backward()
        with pytest.raises(gl.GumlabError, match="Gram sums saw nothing"):
            pruner.step()
        assert pruner.step_count == 0
