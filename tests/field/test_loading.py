"""Folders and names that people load: the model as it was saved, or the sentence that must come.

Each class stands for a kind of public report, named beside it.
"""

from __future__ import annotations

import errno
import json
import shutil
from types import SimpleNamespace

import huggingface_hub as hub
import pytest
import torch
import transformers
from helpers.models import ARCHITECTURES, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.io.diagnosis import doctor

NO_SUCH_FILE = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def loaded_from(folder, **options):
    return gl.load(folder, device="cpu", **options)[0]


def saved_plainly(model, folder, **options):
    """As transformers' own Trainer leaves a model."""
    model.save_pretrained(folder, **options)
    word_tokenizer().save_pretrained(folder)
    return folder


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder, change):
    """`change` is given the weights by name, to change them."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def same_logits(one, other):
    batch = one_batch(one, word_tokenizer(), make_examples(4))
    return torch.equal(logits_of(one, batch), logits_of(other, batch))


def widths(model):
    return [layer.width for layer in neurons(model)]


@pytest.fixture
def folder(gpt2, tmp_path):
    """A plain model's."""
    return saved_plainly(gpt2, tmp_path / "model")


def refused(folder, sentence):
    """gl.load says it, in one sentence's line, and the doctor says it too and agrees."""
    with pytest.raises(gl.GumlabError, match=sentence) as said:
        gl.load(folder, device="cpu")
    assert "\n" not in str(said.value)
    report = doctor(folder)
    assert "gumlab" not in report.loads_with
    assert str(said.value) in [finding.text for finding in report.findings]


class TestWidths:
    """Widths that gl.save alone knows of (found by trying; VainF/Torch-Pruning 252)."""

    @pytest.mark.parametrize("name", [*ARCHITECTURES, "bloom"])
    def test_what_save_pretrained_wrote_loads(self, name, tmp_path):
        small = gl.shrink(tiny(name), random_masks(tiny(name), equal=False))
        folder = saved_plainly(small, tmp_path)
        loaded = loaded_from(folder)
        assert same_logits(loaded, small)
        assert type(loaded) is type(small)
        assert loaded.state_dict().keys() == small.state_dict().keys()
        report = doctor(folder)
        assert (report.widths, report.loads_with) == ([7, 11], ["gumlab"])
        assert "unequal widths (read from the weights, config.json says others)" in repr(report)

    @pytest.mark.parametrize(
        ("config", "options"),
        [
            ({}, {"max_shard_size": "4KB"}),
            ({"tie_word_embeddings": True}, {}),
            ({"tie_word_embeddings": True, "attention_bias": True}, {"max_shard_size": "4KB"}),
            ({"num_key_value_heads": 2, "mlp_bias": False}, {}),
        ],
        ids=["shards", "tied", "tied-shards", "no-biases"],
    )
    def test_in_whatever_form(self, config, options, tmp_path):
        model = tiny("llama", **config)
        small = gl.shrink(model, random_masks(model, equal=False))
        folder = saved_plainly(small, tmp_path, **options)
        assert len(list(folder.glob("*.safetensors"))) > 2 * ("max_shard_size" in options)
        loaded = loaded_from(folder)
        assert same_logits(loaded, small)
        tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
        assert tied == config.get("tie_word_embeddings", False)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_in_the_file_s_own_dtype(self, dtype, tmp_path):
        model = tiny("gemma3_text", dtype=dtype)
        small = gl.shrink(model, random_masks(model, equal=False))
        loaded = loaded_from(saved_plainly(small, tmp_path), dtype="auto")
        assert {p.dtype for p in loaded.parameters()} == {dtype}
        state = small.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())

    def test_a_trainer_s_own_save(self, gpt2, tmp_path):
        pytest.importorskip("accelerate")
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
        trainer = transformers.Trainer(small, arguments, processing_class=word_tokenizer())
        trainer.save_model(tmp_path / "saved")
        assert same_logits(loaded_from(tmp_path / "saved"), small)

    def test_loaded_by_gumlab_saved_by_transformers_loaded_again(self, gpt2, tokenizer, tmp_path):
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        first = loaded_from(gl.save(small, tokenizer, tmp_path / "first"))
        assert same_logits(loaded_from(saved_plainly(first, tmp_path / "second")), small)

    def test_equal_widths_that_the_config_does_not_say(self, model, tmp_path):
        small = gl.shrink(model, random_masks(model))
        folder = saved_plainly(small, tmp_path / "one")
        field = next(
            f for f in ("n_inner", "ffn_dim", "intermediate_size") if f in vars(small.config)
        )
        change_config(folder, **{field: 24})
        assert doctor(folder).loads_with == ["gumlab"]
        loaded = loaded_from(folder)
        assert same_logits(loaded, small)
        assert getattr(loaded.config, field) == 11
        again = saved_plainly(loaded, tmp_path / "two")
        assert doctor(again).loads_with == ["gumlab", "transformers"]

    def test_a_base_model_without_its_head_s_prefix(self, gpt2, tmp_path):
        """As the hub's own gpt2 is: h.0.mlp..., not transformer.h.0.mlp..."""
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        folder = saved_plainly(small.transformer, tmp_path)
        assert "h.0.mlp.c_fc.weight" in load_file(folder / WEIGHTS)
        assert same_logits(loaded_from(folder), small)

    @pytest.mark.parametrize("width", [1, 16, 24])
    def test_a_layer_of_one_neuron_and_one_as_wide_as_the_model(self, model, width, tmp_path):
        masks = [torch.arange(24) < width, torch.arange(24) < 5]
        small = gl.shrink(model, masks)
        loaded = loaded_from(saved_plainly(small, tmp_path))
        assert same_logits(loaded, small)
        assert widths(loaded) == widths(small) == [width, 5]

    @pytest.mark.parametrize(
        ("recorded", "sentence"),
        [
            ({"0": {"n_inner": 9}, "1": {"n_inner": 11}}, "layer 0 has 7 neurons in the weights"),
            ({"1": {"n_inner": 11}}, "layer 0 has 7 neurons.*says that of all layers"),
            ({"0": {"n_inner": 7}, "7": {"n_inner": 7}}, "names layer 7.*2 layers"),
            ({"0": {"n_inner": 0}}, "per_layer_config in config.json is damaged"),
            ({"0": {"n_inner": True}}, "per_layer_config in config.json is damaged"),
            ({"first": {"n_inner": 7}}, "per_layer_config in config.json is damaged"),
            ([7, 11], "per_layer_config in config.json is damaged"),
            ({"0": 7}, "per_layer_config in config.json is damaged"),
        ],
    )
    def test_a_record_that_is_not_as_the_weights_are(self, recorded, sentence, gpt2, tmp_path):
        folder = saved_plainly(gl.shrink(gpt2, random_masks(gpt2, equal=False)), tmp_path)
        change_config(folder, per_layer_config=recorded)
        refused(folder, sentence)

    def test_only_widths_are_read_from_the_weights(self, folder):
        change_config(folder, vocab_size=70)
        refused(folder, r"has others in their place \(.*wte.weight")

    @pytest.mark.parametrize("parameter", ["c_fc.weight", "c_fc.bias", "c_proj.weight"])
    def test_a_block_whose_parts_are_of_two_widths_is_refused(self, parameter, folder):
        key = f"transformer.h.0.mlp.{parameter}"

        def cut(weights):
            axis = 1 if parameter == "c_fc.weight" else 0
            weights[key] = weights[key].narrow(axis, 0, 9).contiguous()

        change_weights(folder, cut)
        refused(folder, r"has others in their place \(.*h\.0\.mlp")


class TestImagesAndText:
    """A model that also sees cannot be loaded again (found by trying, Gemma 3)."""

    @pytest.fixture
    def seeing(self):
        """A tiny one whose two towers are equally wide; every weight about 0.1."""
        text = {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        }
        vision = {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        }
        config = transformers.Gemma3Config(
            text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=63
        )
        model = transformers.Gemma3ForConditionalGeneration(config).eval()
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return model

    def logits(self, model):
        ids = torch.tensor([[5, 9, 63, 63, 63, 63, 11, 12]])
        pixels = torch.linspace(-1, 1, 3 * 28 * 28).view(1, 3, 28, 28)
        kinds = (ids == 63).long()
        with torch.no_grad():
            return model(
                input_ids=ids,
                pixel_values=pixels,
                token_type_ids=kinds,
                attention_mask=torch.ones_like(ids),
            ).logits

    def shrunk(self, model, kept):
        """Cut by hand, the language part alone."""
        for layer, width in zip(gl.neurons(model), kept, strict=True):
            for module in (*layer.fc, layer.proj):
                axis = int(module is layer.proj)
                module.weight.data = module.weight.data.narrow(axis, 0, width).contiguous()
            layer.set_sizes()
        return model

    @pytest.mark.parametrize("form", ["recorded", "plain", "padded", "dense", "shards"])
    def test_it_loads_as_it_was_saved_and_sees(self, form, seeing, tmp_path):
        kept = {"dense": [24, 24], "padded": [24, 24]}.get(form, [5, 9])
        small = self.shrunk(seeing, kept)
        if form == "padded":
            for layer in gl.neurons(small):
                for module in (*layer.fc, layer.proj):
                    module.weight.data.narrow(int(module is layer.proj), 15, 9).zero_()
        options = {"max_shard_size": "16KB"} if form == "shards" else {}
        folder = saved_plainly(small, tmp_path, **options)
        if form == "recorded":
            by_layer = {str(i): {"intermediate_size": width} for i, width in enumerate(kept)}
            change_config(folder, per_layer_config=by_layer)
        loaded = loaded_from(folder)
        assert torch.equal(self.logits(loaded), self.logits(small))
        assert [layer.width for layer in gl.neurons(loaded)] == kept
        report = doctor(folder)
        assert report.widths == kept
        assert report.in_use == ([15, 15] if form == "padded" else kept)
        plain = ["gumlab", "transformers"]
        assert report.loads_with == (plain if form in ("dense", "padded") else ["gumlab"])

    def test_the_picture_counts(self, seeing):
        before = self.logits(seeing)
        next(seeing.model.vision_tower.parameters()).data += 1
        assert not torch.equal(self.logits(seeing), before)

    def test_a_record_that_is_not_as_the_weights_are(self, seeing, tmp_path):
        folder = saved_plainly(self.shrunk(seeing, [5, 9]), tmp_path)
        change_config(folder, per_layer_config={"0": {"intermediate_size": 6}})
        refused(folder, "layer 0 has 5 neurons in the weights, but per_layer_config .* says 6")


def answered(kind, status):
    """An error of the hub's own, as its client raises it."""
    response = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind("Some words of the hub's.\nAnd more of them.", response=response)


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no environment that keeps it from being asked."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)


class Remote:
    """A repository on the hub, played by a folder; it counts what is fetched from it."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.fetched = folder, set()
        monkeypatch.setattr(hub.HfApi, "model_info", self.model_info)
        monkeypatch.setattr(hub, "hf_hub_download", self.hf_hub_download)
        monkeypatch.setattr(hub, "snapshot_download", self.snapshot_download)

    def model_info(self, name, revision=None, timeout=None):
        names = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*")]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def hf_hub_download(self, name, filename, revision=None):
        return self.snapshot_download(name, allow_patterns=[filename]) + f"/{filename}"

    def snapshot_download(self, name, revision=None, allow_patterns=()):
        there = self.folder.parent / "fetched"
        there.mkdir(exist_ok=True)
        for wanted in allow_patterns:
            shutil.copy(self.folder / wanted, there / wanted)
            self.fetched.add(wanted)
        return str(there)


def pickled(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def for_llama_cpp(folder):
    (folder / WEIGHTS).rename(folder / "model-Q4.gguf")


def remote_code(folder):
    names = {"AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
    change_config(folder, model_type="odd", auto_map=names)


def of_another_version(folder):
    change_config(folder, model_type="gpt99")


def quantised(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def encoder_decoder(folder):
    transformers.T5Config().save_pretrained(folder)


def encoder(folder):
    transformers.BertConfig().save_pretrained(folder)


def adapter(folder):
    (folder / "config.json").unlink()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "gpt2"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def a_dataset(folder):
    (folder / "config.json").unlink()


@pytest.mark.usefixtures("no_cache")
class TestTheHub:
    """One sentence for every cause (h2oai/h2ogpt 30, huggingface/transformers 29988)."""

    @pytest.mark.parametrize(
        ("raised", "sentence"),
        [
            (answered(errors.GatedRepoError, 403), "is gated.*Accept it at https.*hf auth login"),
            (answered(errors.GatedRepoError, 401), "is gated.*Accept it at https.*hf auth login"),
            (answered(errors.RepositoryNotFoundError, 404), "knows none of that name.*private"),
            (answered(errors.DisabledRepoError, 403), "has closed 'some/model'"),
            (answered(errors.RevisionNotFoundError, 404), "no branch or revision"),
            (answered(errors.HfHubHTTPError, 401), r"does not let you read .* \(401\). Log in"),
            (answered(errors.HfHubHTTPError, 403), r"does not let you read .* \(403\). Log in"),
            (answered(errors.HfHubHTTPError, 429), "too many requests.*Wait a few minutes"),
            (answered(errors.HfHubHTTPError, 503), "status 503.*Try again later"),
            (answered(NO_SUCH_FILE, 404), "lacks a file"),
            (errors.HFValidationError("No such form."), "no name that the hub could have"),
            (errors.OfflineModeIsEnabled("Offline."), "HF_HUB_OFFLINE is set. Unset it once"),
            (errors.LocalEntryNotFoundError("Nothing."), "cannot be reached.*Without a network"),
            (ConnectionError("Name or service not known"), "cannot be reached.*Without a network"),
            (TimeoutError("timed out"), r"cannot be reached \(timed out\).*Without a network"),
            (OSError(errno.ENOSPC, "No space left"), "disk is full.*HF_HOME"),
            (OSError(errno.EDQUOT, "Quota exceeded"), "disk is full.*HF_HOME"),
            (PermissionError(errno.EACCES, "Permission denied"), "cannot be written.*HF_HOME"),
            (OSError(errno.EROFS, "Read-only file system"), "cannot be written.*HF_HOME"),
            (RuntimeError("Odd."), r"could not be fetched .*\(RuntimeError: Odd\)"),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_each_cause_has_its_sentence(self, raised, sentence, wrapped, monkeypatch):
        def fail(*args, **options):
            if not wrapped:
                raise raised
            try:
                raise raised
            except Exception as error:
                raise OSError("There was an error.") from error

        monkeypatch.setattr(hub.HfApi, "model_info", fail)
        if wrapped and type(raised) is RuntimeError:
            sentence = r"could not be fetched .*\(OSError: There was an error\)"
        if wrapped and "cannot be reached" in sentence:
            sentence = "cannot be reached.*Without a network"
        with pytest.raises(gl.GumlabError, match=sentence) as said:
            gl.load("some/model")
        assert "\n" not in str(said.value)
        assert str(said.value).count("some/model") or raised.errno
        assert "damaged" not in str(said.value)

    def test_the_client_s_own_error_of_a_lost_network(self, monkeypatch):
        """Of the library by which huggingface_hub asks, whichever it is."""
        library = errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]
        client = pytest.importorskip(library)
        raised = getattr(client, "ConnectError", None) or client.ConnectionError

        def fail(*args, **options):
            raise raised("[Errno -2] Name or service not known")

        monkeypatch.setattr(hub.HfApi, "model_info", fail)
        with pytest.raises(gl.GumlabError, match=r"cannot be reached \(\[Errno -2\].*Without"):
            gl.load("some/model")

    def test_only_what_is_read_is_fetched(self, gpt2, tmp_path, monkeypatch):
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        folder = saved_plainly(small, tmp_path / "remote", max_shard_size="8KB")
        shards = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        for name in ("pytorch_model.bin", "consolidated.safetensors", "model.gguf", "flax.msgpack"):
            (folder / name).write_bytes(b"large")
        (folder / "original").mkdir()
        (folder / "original" / "params.json").write_text("{}")
        remote = Remote(folder, monkeypatch)
        assert same_logits(loaded_from("some/model"), small)
        assert shards | {"config.json", INDEX, "tokenizer.json"} <= remote.fetched
        assert all(name.endswith(".json") for name in remote.fetched - shards)
        assert len(shards) > 2

    @pytest.mark.parametrize("with_code", [False, True])
    def test_what_gumlab_saved_is_fetched_whole_and_verified(
        self, with_code, gpt2, tmp_path, monkeypatch
    ):
        tokenizer = word_tokenizer()
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        folder = gl.save(small, tokenizer, tmp_path / "remote", with_code=with_code)
        Remote(folder, monkeypatch)
        assert same_logits(loaded_from("some/model"), small)
        (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
        with pytest.raises(gl.GumlabError, match=r"not as gumlab.save wrote it.*config\.json"):
            gl.load("some/model")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (pickled, r"'some/model' holds no safetensors.*pytorch_model\.bin.*could run code"),
            (for_llama_cpp, r"'some/model' holds no safetensors.*\.gguf file is for llama\.cpp"),
            (remote_code, "'some/model' needs Python code.*never runs remote code"),
            (of_another_version, "'some/model'.*'gpt99', which is no causal.*upgrade transformers"),
            (quantised, r"'some/model' is quantised \(gptq, 4 bits\)"),
            (encoder_decoder, r"'some/model' is an encoder-decoder model \(t5\).*such as GPT-2"),
            (encoder, r"'some/model' is an encoder.*\(bert\)"),
            (adapter, r"'some/model' holds an adapter \(LORA\) of the model 'gpt2'.*Merge"),
            (a_dataset, "'some/model' on the hub has no config.json"),
        ],
    )
    def test_refused_before_weights_are_downloaded(self, change, sentence, folder, monkeypatch):
        change(folder)
        remote = Remote(folder, monkeypatch)
        monkeypatch.setattr("gumlab.io.hub._converted", lambda name: None)
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load("some/model")
        assert remote.fetched <= {"config.json", "adapter_config.json"}

    def test_a_full_disk_while_fetching(self, folder, monkeypatch):
        remote = Remote(folder, monkeypatch)

        def fail(*args, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(hub, "snapshot_download", fail)
        monkeypatch.setattr(
            hub, "hf_hub_download", lambda name, file, revision=None: remote.folder / file
        )
        with pytest.raises(gl.GumlabError, match=r"The disk is full.*cache.*HF_HOME"):
            gl.load("some/model")

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", None])
    def test_offline_a_cache_with_a_part_says_which(self, name, folder, tmp_path, monkeypatch):
        snapshot = tmp_path / "cache" / "models--some--model" / "snapshots" / ("a" * 40)
        refs = snapshot.parents[1] / "refs"
        snapshot.mkdir(parents=True)
        refs.mkdir()
        (refs / "main").write_text("a" * 40)
        for file in folder.iterdir():
            if file.name != WEIGHTS:
                shutil.copy(file, snapshot)
        if name is not None:
            shutil.copy(folder / WEIGHTS, snapshot / name)
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        if name == WEIGHTS:
            assert widths(loaded_from("some/model")) == [24, 24]
            return
        sentence = "only a part of it is in the cache" if name is None else "could run code"
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load("some/model")

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("tiny-gpt", "Unknown model 'tiny-gpt'. Did you mean 'tiny-gpt2'"),
            ("Tiny-GPT2", "Did you mean 'tiny-gpt2'"),
            ("tny-llama", "Did you mean 'tiny-llama'"),
            ("tinygptneo", "Did you mean 'tiny-gpt-neo'"),
            ("", "Expected the name of a model"),
            (None, "Expected the name of a model or the path of its folder, got None"),
            (7, "got 7"),
            ("x" * 300, "no name that the hub could have"),
            ("a/b/c/d", "no name that the hub could have"),
            ("/nowhere/at/all", "not a folder here, and no name that the hub could have"),
            ("https://huggingface.co/gpt2", "no name that the hub could have"),
            ("nowhere.gguf", r"There is no file nowhere\.gguf"),
            ("out/model.safetensors", r"There is no file out/model\.safetensors"),
        ],
    )
    def test_a_name_that_cannot_be_is_told_without_a_network(self, name, sentence, monkeypatch):
        monkeypatch.setattr(hub.HfApi, "_build_hf_headers", None)  # no request is made
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load(name)

    @pytest.mark.parametrize("name", ["gpt2", "distilgpt2", "gpt2-medium", "openai-gpt", "a/tiny"])
    def test_names_of_the_hub_go_to_the_hub(self, name, monkeypatch):
        def fail(self, name, **options):
            raise ConnectionError(name)

        monkeypatch.setattr(hub.HfApi, "model_info", fail)
        with pytest.raises(gl.GumlabError, match=rf"cannot be reached \({name}\)"):
            gl.load(name)

    @pytest.mark.parametrize(
        ("file", "sentence"),
        [
            ("model.safetensors", "is a file; a model is a folder.*Give the folder's path"),
            ("config.json", "is a file; a model is a folder.*Give the folder's path"),
            ("model.gguf", "is not a GGUF file"),
            ("model.onnx", "is a file of ONNX"),
            ("pytorch_model.bin", "is pickled, and gumlab never unpickles"),
        ],
    )
    def test_a_path_to_a_file(self, file, sentence, tmp_path):
        (tmp_path / file).write_bytes(b"")
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load(tmp_path / file)


class TestDtypesAndDevices:
    """A typo in dtype is "damaged" (h2oai/h2ogpt 30)."""

    @pytest.mark.parametrize(
        ("dtype", "sentence"),
        [
            ("flaot16", "Unknown dtype 'flaot16'. Did you mean 'float16'"),
            ("bf16", "Unknown dtype 'bf16'. Did you mean 'bfloat16'"),
            ("nn", "Unknown dtype 'nn'"),
            ("Auto", "Unknown dtype 'Auto'. Did you mean 'auto'"),
            (torch.int8, r"dtype=torch.int8 is none that a model computes in"),
            ("int64", r"dtype=torch.int64 is none that a model computes in"),
            (torch.float8_e4m3fn, "is none that a model computes in; gumlab loads float32"),
            (torch.complex64, "is none that a model computes in"),
            (None, "Unknown dtype None"),
            (16, "Unknown dtype 16"),
        ],
    )
    def test_a_dtype_that_cannot_be_is_told_before_anything_is_read(self, dtype, sentence):
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load("/nowhere/at/all", dtype=dtype)

    @pytest.mark.parametrize(
        ("dtype", "want"),
        [
            ("float16", torch.float16),
            ("torch.bfloat16", torch.bfloat16),
            ("half", torch.float16),
            ("double", torch.float64),
            (torch.float64, torch.float64),
            ("auto", torch.float32),
        ],
    )
    def test_the_others_load(self, dtype, want, folder):
        model = loaded_from(folder, dtype=dtype)
        tensors = [*model.parameters(), *model.buffers()]
        assert {p.dtype for p in model.parameters()} == {want}
        assert not any(tensor.is_meta for tensor in tensors)

    def test_auto_is_the_file_s_own_whatever_the_config_says(self, gpt2, tmp_path):
        folder = saved_plainly(gpt2.bfloat16(), tmp_path)
        change_config(folder, dtype="float32")
        assert loaded_from(folder, dtype="auto").dtype == torch.bfloat16

    @pytest.mark.parametrize(
        ("device", "sentence"),
        [
            ("gpu", "device='gpu' is none that torch knows"),
            ("meta", "holds no numbers"),
            (1.5, "is none that torch knows"),
        ],
    )
    def test_a_device_that_cannot_be(self, device, sentence):
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load("tiny-gpt2", device=device)


def sharded(folder):
    """The folder's weights in two shards with their index, by hand; the shards' names."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    keys = sorted(weights)
    parts = {
        "model-00001-of-00002.safetensors": keys[::2],
        "model-00002-of-00002.safetensors": keys[1::2],
    }
    index = {}
    for name, part in parts.items():
        save_file({key: weights[key] for key in part}, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return list(parts)


def noise_like(path, seed=1):
    """Weights of the same names and shapes, and of other values."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(path).items()
    }


def stray_weights(folder):
    save_file(noise_like(folder / WEIGHTS), folder / "zzz.safetensors")


def stray_optimizer(folder):
    save_file({"state.0.exp_avg": torch.ones(3)}, folder / "optimizer.safetensors")
    torch.save({}, folder / "optimizer.pt")


def stray_shard(folder):
    save_file(noise_like(folder / WEIGHTS), folder / "model-00001-of-00002.safetensors")


def stray_index(folder):
    stray_shard(folder)
    shard = "model-00001-of-00002.safetensors"
    index = dict.fromkeys(load_file(folder / WEIGHTS), shard)
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))


def stray_copy_of_half_precision(folder):
    half = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / "model.fp16.safetensors")


def stray_garbage(folder):
    (folder / "zzz.safetensors").write_bytes(b"no safetensors at all")


def stray_beside_shards(folder):
    noise = noise_like(folder / WEIGHTS)
    sharded(folder)
    save_file(noise, folder / "model-00003-of-00003.safetensors")


def missing_shard(folder):
    (folder / sharded(folder)[1]).unlink()


def doubled_tensor(folder):
    first, second = (folder / name for name in sharded(folder))
    save_file(load_file(second) | dict([*load_file(first).items()][:1]), second)


def index_out_of_the_folder(folder):
    sharded(folder)
    index = {"weight_map": dict.fromkeys(["a", "b"], f"../{WEIGHTS}")}
    (folder / INDEX).write_text(json.dumps(index))


def index_without_a_map(folder):
    sharded(folder)
    (folder / INDEX).write_text("{}")


def empty_index(folder):
    sharded(folder)
    (folder / INDEX).write_text('{"weight_map": {}}')


def shards_without_their_index(folder):
    sharded(folder)
    (folder / INDEX).unlink()


def only_another_name(folder):
    (folder / WEIGHTS).rename(folder / "consolidated.safetensors")


def named_in_the_config(folder):
    change_config(folder, transformers_weights="weights.safetensors")


def shards_of_many_processes(folder):
    shutil.copy(folder / WEIGHTS, folder / "shard-00001-model-00001-of-00001.safetensors")


def adapter_beside_the_model(folder):
    settings = {"peft_type": "LORA", "base_model_name_or_path": "gpt2"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a": torch.ones(1)}, folder / "adapter_model.safetensors")


class TestFiles:
    """A stray *.safetensors overrides the weights (found by reading)."""

    @pytest.mark.parametrize("equal", [True, False])
    @pytest.mark.parametrize(
        "stray",
        [
            stray_weights,
            stray_optimizer,
            stray_shard,
            stray_index,
            stray_copy_of_half_precision,
            stray_garbage,
            stray_beside_shards,
        ],
    )
    def test_what_transformers_would_not_read_is_not_read(self, stray, equal, gpt2, tmp_path):
        small = gl.shrink(gpt2, random_masks(gpt2, equal))
        folder = saved_plainly(small, tmp_path)
        stray(folder)
        assert same_logits(loaded_from(folder), small)
        assert same_logits(loaded_from(folder, dtype="auto"), small)
        report = doctor(folder)
        assert report.loads_with == (["gumlab", "transformers"] if equal else ["gumlab"])
        assert "Nobody reads" in repr(report)
        assert report.dtype == "float32"
        assert all(finding.good for finding in report.findings)

    def test_a_recorded_width_is_not_filled_from_a_stray_file_either(self, gpt2, tmp_path):
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        folder = saved_plainly(small, tmp_path)
        change_config(folder, per_layer_config={"0": {"n_inner": 7}, "1": {"n_inner": 11}})
        stray_weights(folder)
        assert same_logits(loaded_from(folder), small)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (missing_shard, "1 of the 2 shards that .* names are missing: model-00002-of-00002"),
            (doubled_tensor, "stands in two files, model-00001.* and model-00002"),
            (index_out_of_the_folder, "is damaged: it has no readable weight_map"),
            (index_without_a_map, "is damaged: it has no readable weight_map"),
            (empty_index, "is damaged: it has no readable weight_map"),
            (shards_without_their_index, "holds no safetensors weights.*Copy the index too"),
            (only_another_name, "Of consolidated.safetensors gumlab cannot tell what it is"),
            (named_in_the_config, r"config\.json asks for weights\.safetensors; copy it there"),
            (shards_of_many_processes, "shards of many processes.*Gather it first"),
            (adapter, r"holds an adapter \(LORA\) of the model 'gpt2'.*merge_and_unload"),
            (adapter_beside_the_model, r"holds an adapter \(LORA\) of the model 'gpt2'"),
            (pickled, r"holds no safetensors.*pytorch_model\.bin.*If you trust the file"),
            (for_llama_cpp, r"holds no safetensors.*\.gguf file is for llama\.cpp"),
        ],
    )
    def test_what_is_missing_or_is_of_another_kind_is_named(self, change, sentence, folder):
        change(folder)
        refused(folder, sentence)

    def test_a_file_that_the_config_names_is_read(self, gpt2, folder):
        (folder / WEIGHTS).rename(folder / "weights.safetensors")
        change_config(folder, transformers_weights="weights.safetensors")
        assert same_logits(loaded_from(folder), gpt2)


def bitsandbytes(folder):
    settings = {"load_in_8bit": True, "quant_method": "bitsandbytes"}
    change_config(folder, quantization_config=settings)


def awq(folder):
    change_config(folder, quantization_config={"quant_method": "awq", "bits": 4})


def fp8(folder):
    change_config(folder, quantization_config={"quant_method": "fp8"})


def compressed(folder):
    change_config(folder, compression_config={"quant_method": "compressed-tensors"})


def int8_without_a_word_in_the_config(folder):
    def quantise(weights):
        weights["transformer.h.0.mlp.c_fc.weight"] = torch.ones(16, 24, dtype=torch.int8)

    change_weights(folder, quantise)


def value_head(folder):
    head = {"v_head.summary.weight": torch.ones(1, 16), "v_head.summary.bias": torch.ones(1)}
    change_weights(folder, lambda weights: weights.update(head))


def low_rank_keys(folder):
    key = "transformer.h.0.attn.c_attn.lora_A.default.weight"
    change_weights(folder, lambda weights: weights.update({key: torch.ones(2, 16)}))


def of_kind(kind, name, **options):
    """A model of another kind of the architecture, saved in the folder's place."""

    def saved(folder):
        tokenizer = word_tokenizer()
        config = tiny(name).config
        config.update(options)
        saved_plainly(getattr(transformers, kind)(config), folder)
        tokenizer.save_pretrained(folder)

    saved.__name__ = kind
    return saved


def speech(folder):
    transformers.WhisperConfig().save_pretrained(folder)


def vision(folder):
    transformers.ViTConfig().save_pretrained(folder)


def image_and_text_pairs(folder):
    transformers.CLIPConfig().save_pretrained(folder)


def sound(folder):
    transformers.Wav2Vec2Config().save_pretrained(folder)


def translation(folder):
    transformers.BartConfig().save_pretrained(folder)


class TestKindsOfModels:
    """Heads, quantised weights, other kinds (huggingface/transformers 23401 and 4490)."""

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (bitsandbytes, r"is quantised \(bitsandbytes, 8 bits\).*quantise the smaller one"),
            (awq, r"is quantised \(awq, 4 bits\)"),
            (quantised, r"is quantised \(gptq, 4 bits\)"),
            (fp8, r"is quantised \(fp8\)"),
            (compressed, r"is quantised \(compressed-tensors\)"),
            (int8_without_a_word_in_the_config, r"holds quantised weights \(.*c_fc\.weight is I8"),
            (value_head, r"no place for \(v_head\.summary\.bias, v_head\.summary\.weight\)"),
            (low_rank_keys, r"an adapter's weights among the model's \(.*lora_A.*merge_and_unload"),
            (encoder_decoder, r"is an encoder-decoder model \(t5\)"),
            (translation, r"is an encoder-decoder model \(bart\)"),
            (speech, r"is an encoder-decoder model \(whisper\)"),
            (encoder, r"is an encoder, which sees the whole text at once \(bert\)"),
            (vision, r"is a model of images \(vit\)"),
            (image_and_text_pairs, r"is a model of images \(clip\)"),
            (sound, r"is a model of sound \(wav2vec2\)"),
            (remote_code, "needs Python code.*never runs remote code"),
            (of_another_version, "'gpt99', which is no causal language model"),
        ],
    )
    def test_what_is_no_plain_language_model_is_named(self, change, sentence, folder):
        change(folder)
        refused(folder, sentence)

    @pytest.mark.parametrize(
        ("kind", "name", "head"),
        [
            ("GPT2ForSequenceClassification", "gpt2", "score"),
            ("GPT2ForTokenClassification", "gpt2", "classifier"),
            ("GPT2ForQuestionAnswering", "gpt2", "qa_outputs"),
            ("LlamaForSequenceClassification", "llama", "score"),
            ("LlamaForTokenClassification", "llama", "score"),
            ("GPT2DoubleHeadsModel", "gpt2", "multiple_choice_head"),
        ],
    )
    def test_another_head_is_named(self, kind, name, head, tmp_path):
        """With one label it is the head of a reward model."""
        of_kind(kind, name, num_labels=1)(tmp_path)
        refused(tmp_path, rf"no place for \(.*{head}.*it was saved as {kind}")

    def test_a_quantised_model_is_refused_before_its_weights_are_read(self, folder):
        awq(folder)
        (folder / WEIGHTS).write_bytes(b"")
        with pytest.raises(gl.GumlabError, match=r"is quantised \(awq"):
            gl.load(folder)

    def test_a_bert_that_was_made_a_decoder_is_one(self, tmp_path):
        config = transformers.BertConfig(
            vocab_size=64,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            is_decoder=True,
        )
        folder = saved_plainly(transformers.BertLMHeadModel(config).eval(), tmp_path)
        assert type(loaded_from(folder)).__name__ == "BertLMHeadModel"


class TestDamagedIsSaidOfDamageAlone:
    """Whatever goes wrong is called damaged (h2oai/h2ogpt 30)."""

    @pytest.mark.parametrize(
        ("raised", "sentence"),
        [
            (AttributeError("no such thing"), r"AttributeError: no such thing.*a fault of gumlab"),
            (MemoryError("too large"), r"could not build GPT2LMHeadModel.*MemoryError: too large"),
            (ImportError("It needs `odd-kernels`"), "needs another package .*odd-kernels.*Install"),
        ],
    )
    def test_a_fault_of_a_program_is_none_of_the_files(self, raised, sentence, folder, monkeypatch):
        def fail(self, config):
            raise raised

        monkeypatch.setattr(transformers.GPT2LMHeadModel, "__init__", fail)
        with pytest.raises(gl.GumlabError, match=sentence) as said:
            gl.load(folder, device="cpu")
        assert "damaged" not in str(said.value)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                {"n_layer": "two"},
                r"(settings of|from its) config\.json",
            ),
            ({"n_head": 3}, "could not build GPT2LMHeadModel.*ValueError"),
            ({"activation_function": "odd"}, "could not build GPT2LMHeadModel.*odd"),
            ({"n_layer": 3}, r"lacks weights that its config\.json asks for.*h\.2"),
            ({"n_layer": 1}, r"no place for \(transformer\.h\.1"),
        ],
    )
    def test_a_setting_is_called_a_setting(self, change, sentence, folder):
        change_config(folder, **change)
        refused(folder, sentence)
        with pytest.raises(gl.GumlabError) as said:
            gl.load(folder)
        assert "damaged" not in str(said.value)

    def test_what_is_damaged_is_called_so(self, folder):
        whole = (folder / WEIGHTS).read_bytes()
        for part in (b"", whole[:50], whole[:-9], b"version https://git-lfs", b"\xff" * 100):
            (folder / WEIGHTS).write_bytes(part)
            with pytest.raises(
                gl.GumlabError, match=r"cannot be loaded: model\.safetensors .*damaged"
            ):
                gl.load(folder)
