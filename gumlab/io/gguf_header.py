"""What a GGUF file says of itself before any weight is read: the format of llama.cpp and Ollama."""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # of the tensors' data, where the file does not say
# The format's numbers for the kinds of a value; a text and a list have no fixed size.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, LIST = 8, 9
SPLIT_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
INSTALL = 'pip install "gumlab[gguf]"'


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in the file.

    Attributes
    ----------
    name : str
    shape : tuple of int
        As torch has it, rows first.
    kind : int
        The format's number of the type of its numbers.
    start, size : int
        In bytes, from the beginning of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The settings and the table of tensors of a GGUF file.

    Attributes
    ----------
    path : Path
    settings : dict
        By the format's names, such as "llama.block_count".
    tensors : dict
        A StoredTensor by name, in the file's order.
    """

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, StoredTensor] = field(repr=False)

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model's kind."""
        return str(self.settings.get("general.architecture"))

    def get(self, name: str) -> Any:
        """One of the architecture's own settings; None where there is none."""
        return self.settings.get(f"{self.architecture}.{name}")

    @property
    def widths(self) -> list[int]:
        """N of each layer, from the weights out of the neurons."""
        widths = []
        for number in range(self.get("block_count") or 0):
            down = self.tensors.get(f"blk.{number}.ffn_down.weight")
            widths.append(down.shape[-1] if down is not None else 0)
        return widths


def read_header(path: Path) -> Header:
    """The header of a GGUF file, all of whose tensors are there.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Header

    Raises
    ------
    GumlabError
        If it is no GGUF file, one of another byte order or version, damaged or cut off, or if the
        package gguf is missing, which knows the sizes of the types.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            _check_start(path, start)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header, stored = _read(path, data)
    except FileNotFoundError:
        raise GumlabError(
            f"There is no file {path}. Give the path of a GGUF file, or of a model's folder."
        ) from None
    except OSError as error:
        raise GumlabError(f"{path} cannot be read ({error.strerror}).") from error
    except (struct.error, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _damaged(path) from error
    needed = max((tensor.start + tensor.size for tensor in header.tensors.values()), default=0)
    if needed > stored:
        raise GumlabError(
            f"{path} was cut off: it has {stored:,} bytes, and its tensors need {needed:,}. "
            "Download or copy it again."
        )
    return header


def _damaged(path: Path) -> GumlabError:
    return GumlabError(
        f"{path} is damaged or was cut off: its header, the list of settings and tensors, cannot "
        "be read to its end. Download or copy it again."
    )


def _check_start(path: Path, start: bytes) -> None:
    """Raise GumlabError unless the first bytes are those of a GGUF file that can be read here."""
    if start[:4] != MAGIC:
        raise GumlabError(
            f"{path} is not a GGUF file: it begins with {start[:4]!r}, not with {MAGIC!r}. Give "
            "the path of a .gguf file, or of a folder with config.json and model.safetensors."
        )
    if len(start) < 8:
        raise GumlabError(f"{path} was cut off after {len(start)} bytes. Copy it again.")
    version = int.from_bytes(start[4:], "little")
    if int.from_bytes(start[4:], "big") in VERSIONS:
        raise GumlabError(
            f"{path} is a big-endian GGUF file, made for another kind of processor. Take the "
            "little-endian file of the same model."
        )
    if version not in VERSIONS:
        raise GumlabError(
            f"{path} is GGUF version {version}; gumlab reads versions 2 and 3. Convert the model "
            "again with a newer llama.cpp."
        )


class _Cursor:
    """Takes values from the mapped file one after the other; GumlabError past its end."""

    def __init__(self, path: Path, data: mmap.mmap, place: int) -> None:
        self.path = path
        self.data = data
        self.place = place

    def take(self, form: str) -> tuple[Any, ...]:
        """Plain values, by a format of `struct` without the byte order."""
        size = struct.calcsize(f"<{form}")
        if self.place + size > len(self.data):
            raise _damaged(self.path)
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += size
        return values

    def text(self) -> str:
        (length,) = self.take("Q")
        if self.place + length > len(self.data):
            raise _damaged(self.path)
        raw = self.data[self.place : self.place + length]
        self.place += length
        return raw.decode("utf-8", errors="replace")  # a name in another coding stops nothing

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            inner, count = self.take("IQ")
            if inner not in SCALARS:
                return [self.value(inner) for _ in range(count)]
            if count > len(self.data):  # before struct asks for the memory
                raise _damaged(self.path)
            return list(self.take(f"{count}{SCALARS[inner]}"))
        (value,) = self.take(SCALARS[kind])
        return value


def _read(path: Path, data: mmap.mmap) -> tuple[Header, int]:
    """The header, and the file's size in bytes."""
    cursor = _Cursor(path, data, 8)
    tensor_count, setting_count = cursor.take("QQ")
    settings: dict[str, Any] = {}
    for _ in range(setting_count):
        name = cursor.text()
        (kind,) = cursor.take("I")
        settings[name] = cursor.value(kind)
    entries = []
    for _ in range(tensor_count):
        name = cursor.text()
        (dimensions,) = cursor.take("I")
        sizes = cursor.take(f"{dimensions}Q")
        kind, offset = cursor.take("IQ")
        entries.append((name, tuple(reversed(sizes)), kind, offset))
    alignment = settings.get("general.alignment", ALIGNMENT)
    begin = -(-cursor.place // alignment) * alignment if alignment else cursor.place
    blocks = _block_sizes()
    tensors = {}
    for name, shape, kind, offset in entries:
        if kind not in blocks:
            raise GumlabError(
                f"{path}: {name} has numbers of a type ({kind}) that this gguf package does not "
                "know. Is there a newer one? pip install --upgrade gguf"
            )
        block, block_bytes = blocks[kind]
        size = math.prod(shape) // block * block_bytes
        tensors[name] = StoredTensor(name, shape, kind, begin + offset, size)
    return Header(path, settings, tensors), len(data)


def gguf_package() -> Any:
    """The package gguf.

    Raises
    ------
    GumlabError
        If it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise GumlabError(
            f"A GGUF file needs the package gguf, which is not installed: {INSTALL}."
        ) from error
    return gguf


def _block_sizes() -> dict[int, tuple[int, int]]:
    """Numbers and bytes of a block, by the number of its type."""
    return {int(kind): sizes for kind, sizes in gguf_package().GGML_QUANT_SIZES.items()}


def check_is_model(header: Header) -> None:
    """Raise GumlabError for a file that is not the whole of a language model.

    Parameters
    ----------
    header : Header
    """
    path = header.path
    named_part = SPLIT_NAME.search(path.name)
    parts = header.settings.get("split.count") or (int(named_part[2]) if named_part else 1)
    if parts > 1:
        raise GumlabError(
            f"{path} is one of the {parts} parts of a split model. Put them together with "
            "llama.cpp's `llama-gguf-split --merge` and give the whole file."
        )
    kind = header.settings.get("general.type", "model")
    if kind == "mmproj" or header.architecture == "clip":
        raise GumlabError(
            f"{path} is the image or sound part (mmproj) of a multimodal model, which has no "
            "language model in it. Give the file of the language model that lies beside it."
        )
    if kind != "model":
        raise GumlabError(
            f"{path} holds no model but an extra for one (general.type {kind!r}). Give the file of "
            "the model; an adapter is merged into it with llama.cpp's `llama-export-lora`."
        )
    if not header.tensors:
        raise GumlabError(
            f"{path} holds a vocabulary and no weights. Give the file of the whole model."
        )


@dataclass
class Description:
    """What a GGUF file holds.

    Attributes
    ----------
    path : str
    architecture : str
    name : str, optional
        What the file calls the model.
    parameters : int
        Numbers in all tensors.
    file_bytes : int
    kinds : dict of str to int
        Numbers by type, such as {"Q4_1": 106168320, "F32": 35136}, the most common first.
    layers, context : int
    widths : list of int
        Neurons by layer.
    tokenizer : str
        Its kind and, of a byte-level one, the rule by which it splits words.
    tokens : int
    problem : str, optional
        Why `gumlab.load` does not load it, as a sentence.
    """

    path: str
    architecture: str
    name: str | None
    parameters: int
    file_bytes: int
    kinds: dict[str, int]
    layers: int
    context: int
    widths: list[int]
    tokenizer: str
    tokens: int
    problem: str | None = None

    def sentences(self) -> list[str]:
        """What was found, without the problem."""
        kinds = ", ".join(f"{name} {count:,}" for name, count in self.kinds.items())
        same = len(set(self.widths)) == 1
        widths = f"{self.widths[0]:,} each" if same else ", ".join(map(str, self.widths)) or "none"
        called = f" that calls itself {self.name!r}" if self.name else ""
        return [
            f"A GGUF file of architecture {self.architecture}{called}, "
            f"{self.file_bytes:,} bytes; its header and the bounds of every tensor are right.",
            f"{self.parameters:,} numbers by type: {kinds or 'none'}.",
            f"{self.layers} layers, a context of {self.context:,} tokens; feed-forward neurons by "
            f"layer: {widths}.",
            f"The tokenizer is {self.tokenizer} with {self.tokens:,} tokens.",
        ]

    def __repr__(self) -> str:
        lines = [f"[OK]   {sentence}" for sentence in self.sentences()]
        lines.append(f"[FAIL] {self.problem}" if self.problem else "[OK]   gumlab.load loads it.")
        return "\n".join(lines)


def describe(path: str | Path) -> Description:
    """Say what a GGUF file holds, from its header; no weight is read.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Description
        It prints as a list of findings.

    Raises
    ------
    GumlabError
        If it is no GGUF file, damaged or cut off.
    """
    from gumlab.io.gguf_loading import check_loadable

    path = Path(path).expanduser()
    header = read_header(path)
    try:
        check_loadable(header)
        problem = None
    except GumlabError as error:
        problem = str(error)
    names = gguf_package().GGMLQuantizationType
    numbers = Counter[str]()
    for tensor in header.tensors.values():
        numbers[names(tensor.kind).name] += tensor.numbers
    settings = header.settings
    tokenizer = str(settings.get("tokenizer.ggml.model"))
    if "tokenizer.ggml.pre" in settings:
        tokenizer += f" ({settings['tokenizer.ggml.pre']})"
    return Description(
        path=str(path),
        architecture=header.architecture,
        name=settings.get("general.name"),
        parameters=numbers.total(),
        file_bytes=path.stat().st_size,
        kinds=dict(numbers.most_common()),
        layers=header.get("block_count") or 0,
        context=header.get("context_length") or 0,
        widths=header.widths,
        tokenizer=tokenizer,
        tokens=len(settings.get("tokenizer.ggml.tokens", ())),
        problem=problem,
    )
