"""A GGUF file in llama.cpp, the program people run models with: what it writes, how fast it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gumlab.errors import GumlabError, check_list, check_whole, first_line
from gumlab.io.gguf_header import INSTALL, check_is_model, describe, read_header
from gumlab.measurement import in_turns, spread

QUIET = -1  # of llama.cpp's log: errors go into what it raises
GREEDY = {"temperature": 0.0, "cache_prompt": False}


class LlamaCpp:
    """A GGUF file opened by llama.cpp, in this process and on the CPU.

    Parameters
    ----------
    path : str or Path
    threads : int
        That it computes with.
    context : int, optional
        Tokens of prompt and answer together; by default as many as the model was made for.
    exact : bool
        Keep keys and values in float32, and compute attention step by step: slower, and without
        the roundings that llama.cpp otherwise allows itself.

    Attributes
    ----------
    context : int
    vocabulary : int
        How many tokens there are.

    Raises
    ------
    GumlabError
        If the file is missing, damaged or not a whole model; if llama.cpp does not open it; or if
        the package xllamacpp, which holds llama.cpp, is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 1,
        context: int | None = None,
        exact: bool = False,
    ) -> None:
        path = Path(path).expanduser()
        package = _llama_cpp()
        header = read_header(path)
        check_is_model(header)
        longest = header.get("context_length") or 0
        self.path = path
        self.threads = check_whole("threads", threads)
        self.context = longest if context is None else min(check_whole("context", context), longest)
        self.vocabulary = len(header.settings.get("tokenizer.ggml.tokens", ()))
        options = package.CommonParams()
        options.model.path = str(path)
        options.n_ctx = self.context
        options.cpuparams.n_threads = self.threads
        options.cpuparams_batch.n_threads = self.threads
        options.verbosity = QUIET
        options.warmup = options.fit_params = options.ui = False
        options.n_gpu_layers = 0
        options.cache_ram_mib = 0
        if exact:
            options.cache_type_k = options.cache_type_v = package.ggml_type.GGML_TYPE_F32
            flash = package.llama_flash_attn_type
            options.flash_attn_type = flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
        try:
            self.server = package.Server(options)
        except RuntimeError as error:
            raise GumlabError(
                f"llama.cpp does not open {path} ({first_line(error)}). Its architecture, "
                f"{header.architecture}, may be newer than the package: pip install --upgrade "
                "xllamacpp. Or the memory is too small for it."
            ) from error

    def complete(
        self, prompt: str | Sequence[int], *, tokens: int = 16, **options: Any
    ) -> dict[str, Any]:
        """Let it continue a text, always by the likeliest token.

        Parameters
        ----------
        prompt : str or sequence of int
            A text, or the ids of its tokens.
        tokens : int
            At most so many are written.
        **options
            More fields of llama.cpp's request, such as logprobs.

        Returns
        -------
        dict
            llama.cpp's answer: "choices", of which the first has the "text"; "usage"; "timings".

        Raises
        ------
        GumlabError
            With llama.cpp's own words, where it refuses.
        """
        given = prompt if isinstance(prompt, str) else list(prompt)
        wanted = {"prompt": given, "max_tokens": check_whole("tokens", tokens)}
        answer = self.server.handle_completions({**GREEDY, **wanted, **options})
        if "error" in answer:
            raise GumlabError(
                f"llama.cpp refused the request ({answer['error']['message']}). Give a text or "
                f"token ids below {self.vocabulary:,}, that fit into {self.context:,} tokens with "
                "the answer."
            )
        return answer

    def __repr__(self) -> str:
        return f"LlamaCpp({self.path}: {self.threads} thread(s), {self.context:,} tokens)"


def compare(
    files: Sequence[str | Path],
    *,
    threads: Sequence[int] | None = None,
    tokens: int = 128,
    decoded: int = 32,
    repeats: int = 12,
) -> dict[str, dict[str, Any]]:
    """How large GGUF files are, and how fast llama.cpp runs them, in turns.

    Parameters
    ----------
    files : sequence of str or Path
        Each once.
    threads : sequence of int, optional
        Thread counts; by default one, and as many as this process has cores.
    tokens, decoded : int
        Tokens of a prompt (fewer where the context is short), and tokens written after it, 2 or
        more, one at a time.
    repeats : int
        Timed turns of each file, 2 or more.

    Returns
    -------
    dict
        {file: costs}: "architecture", "numbers" (the most common type), "parameters", "widths" by
        layer, "file_bytes", and "speed", a row for each thread count with the medians and quartiles
        of prefill_tokens_per_s and decode_tokens_per_s, as llama.cpp times itself.

    Raises
    ------
    GumlabError
        For numbers that are too small, a file named twice, and what `LlamaCpp` refuses.
    """
    names = [str(file) for file in check_list("files", files, "GGUF files")]
    if len(set(names)) < len(names):
        raise GumlabError("A file is named twice; give each once.")
    counts = _threads() if threads is None else check_list("threads", threads, "thread counts")
    for count in counts:
        check_whole("threads", count)
    check_whole("tokens", tokens)
    check_whole("decoded", decoded, least=2)
    check_whole("repeats", repeats, least=2)
    costs = {name: _size(name) for name in names}
    for count in counts:
        timed = _timed(names, count, tokens, decoded, repeats)
        for name in names:
            read, prefill, decode = zip(*timed[name], strict=True)
            speed = {
                "threads": count,
                "tokens": read[0],
                **spread("prefill_tokens_per_s", prefill),
                **spread("decode_tokens_per_s", decode),
            }
            costs[name]["speed"].append(speed)
    return costs


def _llama_cpp() -> Any:
    """The package xllamacpp."""
    try:
        import xllamacpp
    except ImportError as error:
        raise GumlabError(
            "To run a GGUF file here needs the package xllamacpp, which is llama.cpp, and it is "
            f"not installed: {INSTALL}."
        ) from error
    return xllamacpp


def _threads() -> list[int]:
    """One, and as many as this process may use."""
    cores = os.cpu_count() or 1
    with contextlib.suppress(AttributeError):  # not Linux
        cores = len(os.sched_getaffinity(0))
    return sorted({1, cores})


def _size(name: str) -> dict[str, Any]:
    """What a file is and how large."""
    found = describe(name)
    return {
        "architecture": found.architecture,
        "numbers": next(iter(found.kinds), "none"),
        "parameters": found.parameters,
        "widths": found.widths,
        "file_bytes": found.file_bytes,
        "speed": [],
    }


def _timed(
    names: list[str], threads: int, tokens: int, decoded: int, repeats: int
) -> dict[str, list[tuple[int, float, float]]]:
    """A row of `_turn` for each turn of each file."""
    context = tokens + decoded
    opened = {name: LlamaCpp(name, threads=threads, context=context) for name in names}
    return in_turns(names, repeats, lambda name: _turn(opened[name], tokens, decoded))


def _turn(model: LlamaCpp, tokens: int, decoded: int) -> tuple[int, float, float]:
    """Prompt tokens; prompt tokens read and tokens written, per second."""
    written = min(decoded, model.context // 2)
    generator = torch.Generator().manual_seed(0)
    size = min(tokens, model.context - written)
    prompt = torch.randint(model.vocabulary, (size,), generator=generator).tolist()
    timings = model.complete(prompt, tokens=written, ignore_eos=True)["timings"]
    return timings["prompt_n"], timings["prompt_per_second"], timings["predicted_per_second"]
