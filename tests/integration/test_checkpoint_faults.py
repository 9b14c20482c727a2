"""Checkpoints under fire: flipped bits, kills, full disks; and in places other than this process.

`kill_saves` runs in a process of its own: it forks, and pytest's process has threads.
"""

import contextlib
import json
import logging
import os
import random
import resource
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from helpers.children import alone, killed
from helpers.models import LAYERS, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.io import saving as checkpoints
from gumlab.io.diagnosis import doctor
from gumlab.io.record import RECORD

FORMS = {"equal": (True, False), "unequal": (False, False), "padded": (False, True)}
SHAPES = ("gpt2", "llama", "qwen2", "qwen3", "gemma3_text")


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def tokens(model, length=12):
    """Greedy tokens after a fixed prompt, without a stop."""
    ids = torch.tensor([[4, 9, 17]])
    mask = torch.ones_like(ids)
    options = {"do_sample": False, "max_new_tokens": length, "min_new_tokens": length}
    return model.generate(input_ids=ids, attention_mask=mask, **options)[0].tolist()


@pytest.fixture
def folder(gpt2, tokenizer, tmp_path):
    """A pruned checkpoint of unequal widths, as gl.save wrote it."""
    return gl.save(gl.shrink(gpt2, random_masks(gpt2, False)), tokenizer, tmp_path / "model")


def test_the_record_covers_every_file_but_itself_and_the_card(folder):
    recorded = json.loads((folder / RECORD).read_text())["sha256"]
    assert recorded.keys() == {p.name for p in folder.iterdir()} - {RECORD, "README.md"}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= recorded.keys()
    (folder / "README.md").write_text("My own words.")
    gl.load(folder, device="cpu")


def flip(path, at, bit):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_one_flipped_bit_is_refused_by_load_and_named_by_doctor(folder):
    for name in json.loads((folder / RECORD).read_text())["sha256"]:
        path = folder / name
        whole = path.read_bytes()
        if name == "model.safetensors":
            flip(path, len(whole) - 1, 0)  # the last bit of a number's sign byte: no NaN, no error
            match = f"is not as gumlab.save wrote it.* do not fit {name}.* delete {RECORD}"
            with pytest.raises(gl.GumlabError, match=match):
                gl.load(folder, device="cpu")
        else:
            path.write_bytes(whole + b"\n")
            with pytest.raises(gl.GumlabError, match=f"do not fit {name}"):
                gl.load(folder, device="cpu")
        report = doctor(folder)
        assert "gumlab" not in report.loads_with
        assert f"do not fit {name}" in next(f for f in report.findings if not f.good).text
        path.write_bytes(whole)
        assert doctor(folder).loads_with == ["gumlab"]


def test_a_folder_that_another_tool_changed_loads_without_the_record(folder, tokenizer):
    model, _ = gl.load(folder, device="cpu")
    model.generation_config.temperature, model.generation_config.do_sample = 0.5, True
    model.generation_config.save_pretrained(folder)
    with pytest.raises(gl.GumlabError, match="a setting was edited"):
        gl.load(folder, device="cpu")
    (folder / RECORD).unlink()
    assert gl.load(folder, device="cpu")[0].generation_config.temperature == 0.5
    assert "There is no checksum" in repr(doctor(folder))
    gl.save(model, tokenizer, folder)
    assert "Every file has its checksum" in repr(doctor(folder))


@pytest.mark.parametrize("content", [b"", b"{oops", b"[]", b"{}", b'{"sha256": 3}', b"\xff"])
def test_a_damaged_record_is_refused(folder, content):
    (folder / RECORD).write_bytes(content)
    with pytest.raises(gl.GumlabError, match=f"{RECORD} is damaged. Copy the folder again"):
        gl.load(folder, device="cpu")
    assert doctor(folder).loads_with == []


def damaged(folder, trials, seed=0):
    """Truncations and flipped bits in turns, each mended after; how many of them were refused.

    The others did not matter: same weights, settings and tokens.
    """
    draw, refused = random.Random(seed), 0
    model, tokenizer = gl.load(folder, device="cpu")
    settings = model.config.to_dict()
    names = sorted(p.name for p in folder.iterdir())
    for trial in range(trials):
        path = folder / draw.choice(names)
        whole = path.read_bytes()
        if trial % 2:
            path.write_bytes(whole[: draw.randrange(len(whole))])
        else:
            flip(path, draw.randrange(len(whole)), draw.randrange(8))
        try:
            loaded, its_tokenizer = gl.load(folder, device="cpu")
        except gl.GumlabError:
            refused += 1
        else:
            assert path.name in (RECORD, "README.md"), (trial, path.name)
            state = loaded.state_dict()
            assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
            assert loaded.config.to_dict() == settings
            assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
        path.write_bytes(whole)
    return refused


def test_random_truncations_and_bit_flips_never_load_something_else(folder):
    assert damaged(folder, 80) > 40


# ------------------------------------------------------------------------------ what survives


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_reloaded_model_generates_the_same_tokens(name, form, tokenizer, tmp_path):
    model, (equal, pad) = tiny(name), FORMS[form]
    small = gl.shrink(model, random_masks(model, equal))
    before = tokens(small)
    assert len(set(before)) > 4, "a generation that repeats itself would show little"
    loaded, _ = gl.load(gl.save(small, tokenizer, tmp_path / "m", pad=pad), device="cpu")
    assert tokens(loaded) == before
    assert tokens(model) != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", FORMS)
def test_dtype_generation_config_and_tokenizer_survive(form, dtype, tmp_path):
    equal, pad = FORMS[form]
    tokenizer = word_tokenizer(bos=True)
    tokenizer.chat_template = "{{ messages[0]['content'] }} w4"
    small = gl.shrink(tiny("llama", dtype=dtype), random_masks(tiny("llama"), equal))
    small.generation_config.update(do_sample=True, top_p=0.8, max_new_tokens=7)
    folder = gl.save(small, tokenizer, tmp_path / "m", pad=pad)
    loaded, again = gl.load(folder, device="cpu", dtype="auto")
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert doctor(folder).dtype == str(dtype).removeprefix("torch.")
    ours, its = small.generation_config, loaded.generation_config
    assert (its.do_sample, its.top_p, its.max_new_tokens, its.eos_token_id) == (True, 0.8, 7, 0)
    assert its.to_diff_dict() == ours.to_diff_dict()
    assert again("w9 w60")["input_ids"] == [2, 9, 60]
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.chat_template == tokenizer.chat_template
    if not pad:
        state = small.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())


def test_loading_unequal_widths_is_quiet(folder):
    """transformers' report of mismatched sizes would frighten; its level is left as it was."""
    log, logger = [], logging.getLogger("transformers")
    before = transformers.utils.logging.get_verbosity()
    handler = logging.Handler()
    handler.emit = log.append
    logger.addHandler(handler)
    transformers.utils.logging.set_verbosity_warning()
    try:
        gl.load(folder, device="cpu")
        assert transformers.utils.logging.get_verbosity() == transformers.logging.WARNING
        assert log == []
        config = json.loads((folder / "config.json").read_text())
        del config["per_layer_config"]
        config = transformers.AutoConfig.for_model(**config)
        build = transformers.AutoModelForCausalLM.from_pretrained
        build(folder, config=config, ignore_mismatched_sizes=True)
        assert log != [], "the handler hears what transformers says by itself"
    finally:
        logger.removeHandler(handler)
        transformers.utils.logging.set_verbosity(before)


# -------------------------------------------------------------------- other layouts of a folder


@pytest.mark.parametrize("equal", [True, False])
def test_a_folder_of_shards_loads(equal, gpt2, tokenizer, tmp_path):
    small = gl.shrink(gpt2, random_masks(gpt2, equal))
    batch = one_batch(small, tokenizer, make_examples(4))
    folder = gl.save(small, tokenizer, tmp_path / "m")
    small.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "shards" / name)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    loaded, _ = gl.load(tmp_path / "shards", device="cpu")
    assert torch.equal(logits_of(loaded, batch), logits_of(small, batch))
    report = doctor(tmp_path / "shards")
    assert "gumlab" in report.loads_with
    assert report.widths == [layer.width for layer in neurons(small)]


def hub_copy(folder, cache, name):
    """`folder` as the hub's cache keeps it: links in a snapshot to blobs; the snapshot's path."""
    root, commit = cache / f"models--{name.replace('/', '--')}", "0123456789" * 4
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (root / part).mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for i, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, root / "blobs" / f"{i:040x}")
        (root / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{i:040x}")
    return root / "snapshots" / commit


@pytest.mark.parametrize("form", [*FORMS, "foreign"])
def test_a_hub_cache_loads_by_name_and_by_path(form, gpt2, tokenizer, tmp_path, monkeypatch):
    equal, pad = FORMS.get(form, (True, False))
    small = gl.shrink(gpt2, random_masks(gpt2, equal))
    folder = gl.save(small, tokenizer, tmp_path / "m", pad=pad)
    if form == "foreign":
        (folder / RECORD).unlink()
    snapshot = hub_copy(folder, tmp_path / "hub", "someone/small-model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/small-model", snapshot, str(snapshot)):
        loaded, its_tokenizer = gl.load(name, device="cpu")
        assert tokens(loaded) == tokens(small)
        assert its_tokenizer("w9")["input_ids"] == [9]
    assert "gumlab" in doctor(snapshot).loads_with
    if form != "foreign":
        flip(snapshot / "model.safetensors", -1, 0)
        for name in ("someone/small-model", snapshot):
            with pytest.raises(gl.GumlabError, match=r"do not fit model\.safetensors"):
                gl.load(name)


@pytest.mark.parametrize("form", FORMS)
def test_names_with_spaces_and_letters_of_the_world(form, gpt2, tokenizer, tmp_path):
    equal, pad = FORMS[form]
    small = gl.shrink(gpt2, random_masks(gpt2, equal))
    folder = gl.save(small, tokenizer, tmp_path / "my models [a]" / "Grüße 模型 é*", pad=pad)
    for _ in range(2):
        assert tokens(gl.load(str(folder), device="cpu")[0]) == tokens(small)
        assert "gumlab" in doctor(folder).loads_with
        gl.save(small, tokenizer, folder, pad=pad)
    assert os.listdir(folder.parent) == [folder.name]


def test_saving_through_a_link_writes_where_it_points(folder, gpt2, tokenizer, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    gl.save(gpt2, tokenizer, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert tokens(gl.load(folder, device="cpu")[0]) == tokens(gpt2)
    assert sorted(os.listdir(tmp_path)) == ["link", "model"]


# ------------------------------------------------------------ widths that a config cannot state


@pytest.mark.parametrize("equal", [True, False])
def test_widths_that_the_config_cannot_state_load_with_gumlab(equal, tokenizer, tmp_path):
    """BLOOM is always 4 D wide to transformers, so that even equal widths need the record."""
    model = tiny("bloom")
    small = gl.shrink(model, random_masks(model, equal))
    folder = gl.save(small, tokenizer, tmp_path / "m")
    widths = [layer.width for layer in neurons(small)]
    loaded, _ = gl.load(folder, device="cpu")
    assert [layer.width for layer in neurons(loaded)] == widths == ([11, 11] if equal else [7, 11])
    assert tokens(loaded) == tokens(small)
    assert doctor(folder).loads_with == ["gumlab"]
    assert "gumlab.load" in (folder / "README.md").read_text()
    with pytest.raises(gl.GumlabError, match=r"no entry for the feed-forward width.*without pad"):
        gl.save(small, tokenizer, tmp_path / "padded", pad=True)
    assert os.listdir(tmp_path) == ["m"]
    gl.save(model, tokenizer, tmp_path / "dense", pad=True)
    assert doctor(tmp_path / "dense").loads_with == ["gumlab", "transformers"]


# ---------------------------------------------------------------------- writes that do not end


def half_written(folder):
    """The temporary folders of saves that have not come to their end."""
    return list(folder.glob(".model-saving-*"))


def kill_saves(work, rounds):
    """Kill a saving process `rounds` times: what the folder then was each time.

    [whether it was a first save, "old" or "new" or "none" or "neither"] by round, how many saves
    were left half-written, and whether the next save clears away those older than an hour, alone.
    """
    tokenizer, draw = word_tokenizer(), random.Random(0)
    models = {"old": tiny("gpt2"), "new": tiny("llama")}
    work = Path(work)
    wanted = {k: contents(gl.save(m, tokenizer, work / k / "model")) for k, m in models.items()}
    target, found = work / "here" / "model", []

    def save_for_ever():
        while True:
            for model in models.values():
                gl.save(model, tokenizer, target)

    for i in range(rounds):
        first = i % 4 == 0
        if first:
            shutil.rmtree(target, ignore_errors=True)
        elif not target.exists():
            gl.save(models["old"], tokenizer, target)
        before = len(half_written(target.parent))
        pause = draw.uniform(0.02, 0.06 if first else 0.15)
        killed(save_for_ever, lambda n=before: len(half_written(target.parent)) > n, pause, 10)
        state = "none"
        if target.exists():
            files = contents(target)
            state = next((k for k, v in wanted.items() if v == files), "neither")
            gl.load(target, device="cpu")
        found.append((first, state))
    left = half_written(target.parent)
    for path in left[1:]:
        os.utime(path, (0, 0))
    gl.save(models["old"], tokenizer, target)
    after = sorted(p.name for p in target.parent.iterdir())
    return found, len(left), after == sorted(["model", *(p.name for p in left[:1])])


def killed_saves(folder, count):
    """Kill `count` saves; in how many cases the folder was then old, new, or not yet there."""
    found, left, cleared = alone("test_checkpoint_faults", "kill_saves", folder, count)
    assert len(found) == count
    assert all(state in ("old", "new") for first, state in found if not first), found
    assert all(state in ("old", "new", "none") for _, state in found), found
    assert left >= 2, "hardly a kill came in the middle of a save"
    assert cleared, "the next save clears away what is older than an hour, and only that"
    return Counter(state for _, state in found)


def test_a_killed_save_leaves_the_old_checkpoint_or_the_new(tmp_path):
    killed_saves(tmp_path, 20)


def test_without_an_exchange_in_one_step_a_save_still_replaces(
    folder, gpt2, tokenizer, monkeypatch
):
    monkeypatch.setattr(checkpoints.ctypes, "CDLL", lambda name: object())  # as on macOS
    gl.save(gpt2, tokenizer, folder)
    assert tokens(gl.load(folder, device="cpu")[0]) == tokens(gpt2)
    assert os.listdir(folder.parent) == ["model"]


def test_two_first_saves_at_once_both_succeed(gpt2, tokenizer, tmp_path, monkeypatch):
    """The other one ends in the very moment before ours is put in place."""

    def late(fresh, target):
        monkeypatch.undo()
        gl.save(tiny("llama"), tokenizer, target)
        return fresh.rename(target)

    monkeypatch.setattr(Path, "rename", late)
    folder = gl.save(gpt2, tokenizer, tmp_path / "model")
    assert tokens(gl.load(folder, device="cpu")[0]) == tokens(gpt2)
    assert os.listdir(tmp_path) == ["model"]


def test_what_another_save_clears_away_meanwhile_does_not_matter(gpt2, tokenizer, tmp_path):
    (tmp_path / ".model-saving-gone").symlink_to("nowhere")  # listed, and not there
    assert gl.load(gl.save(gpt2, tokenizer, tmp_path / "model"), device="cpu")


@contextlib.contextmanager
def small_disk(limit):
    """No file may grow beyond `limit` bytes, which a write meets as it meets a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [100, 3_000, 12_000])
def test_a_full_disk_is_a_sentence_and_changes_nothing(folder, gpt2, tokenizer, limit):
    before = contents(folder)
    assert max(map(len, before.values())) > 12_000
    for target in (folder, folder.parent / "other"):
        with small_disk(limit), pytest.raises(gl.GumlabError, match=r"Could not save to .*half-w"):
            gl.save(gpt2, tokenizer, target)
    assert contents(folder) == before
    assert os.listdir(folder.parent) == ["model"]


def test_a_read_only_folder_is_a_sentence_and_changes_nothing(folder, gpt2, tokenizer):
    with tempfile.TemporaryDirectory() as parent:
        target = Path(parent) / "model"
        shutil.copytree(folder, target)
        before, user = contents(target), os.geteuid()
        os.chmod(parent, 0o555)
        if user == 0:
            os.seteuid(65534)  # nobody: the rights of a folder bind everyone but root
        try:
            for there in (target, Path(parent) / "other"):
                with pytest.raises(gl.GumlabError, match=r"Cannot write to .* Choose another"):
                    gl.save(gpt2, tokenizer, there)
            loaded, _ = gl.load(target, device="cpu")
        finally:
            os.seteuid(user)
            os.chmod(parent, 0o755)
        assert contents(target) == before
        assert len(neurons(loaded)) == LAYERS
        assert os.listdir(parent) == ["model"]
