"""A model of the Hugging Face hub as a folder: from the cache, or fetched; and why it is not."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError, first_line
from gumlab.io.configuration import (
    ADAPTER,
    CODE_FILE,
    check_config,
    has_vocabulary,
    read_config,
    read_object,
    refuse_adapter,
)
from gumlab.io.weights import PICKLES, entry_file, shard_names, weight_files

SMALL_FILES = (".json", ".txt", ".model", ".jinja")  # settings and tokenizers, of all kinds
TEMPLATES = "additional_chat_templates/"
BY_HAND = (
    "Without a network, put config.json, model.safetensors, tokenizer.json and "
    "tokenizer_config.json in a folder and give its path."
)
LOG_IN = "Log in (`hf auth login`, or HF_TOKEN in the environment)"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "requests", "urllib3")


def fetch(name: str, built_in: Collection[str]) -> Path:
    """The folder of a model of the hub: from the cache if all is there, else downloaded.

    Parameters
    ----------
    name : str
        Such as "gpt2" or "Qwen/Qwen3-0.6B".
    built_in : collection of str
        The names that gumlab has itself, for the sentences.

    Returns
    -------
    Path
        In the hub's cache, with config.json, weights and tokenizer.

    Raises
    ------
    GumlabError
        For a model that gumlab does not load, before its weights are downloaded, and where there is
        none, or it cannot be fetched, saying why.
    """
    import huggingface_hub as hub

    try:
        config = hub.try_to_load_from_cache(name, "config.json")
        cached = Path(config).parent if isinstance(config, str) else None
        if cached is not None and _is_whole(cached):
            return cached
        if not hub.constants.HF_HUB_OFFLINE:
            return _download(name)
    except GumlabError:
        raise
    except Exception as error:  # of the hub, the network, the disk
        raise _reason(name, built_in, error) from error
    if cached is not None and _has_weights_of_a_kind(cached):
        return cached  # loading it says what is wrong
    state = "only a part of it is" if cached is not None else "it is not"
    raise GumlabError(
        f"{_nowhere(name, built_in)}, and it cannot be fetched: HF_HUB_OFFLINE is set, and {state} "
        f"in the cache. Unset it once where there is a network. {BY_HAND}"
    )


def _nowhere(name: str, built_in: Collection[str]) -> str:
    """The start of the sentences about a name that leads nowhere."""
    return f"{name!r} is not a built-in model ({', '.join(built_in)}), not a folder here"


def _is_whole(folder: Path) -> bool:
    """Whether all that loading reads is in a folder of the cache."""
    try:
        files = weight_files(folder, read_config(folder))
    except GumlabError:
        return False
    return all(path.is_file() for path in files) and has_vocabulary(folder)


def _has_weights_of_a_kind(folder: Path) -> bool:
    """Whether there are weights, if not those that gumlab reads."""
    return any(path.suffix in (*PICKLES, ".safetensors", ".gguf") for path in folder.iterdir())


def _download(name: str, revision: str | None = None) -> Path:
    """Fetch what loading reads of a model, after its config.json was found good."""
    import huggingface_hub as hub

    # asked first, to fail in seconds, not after retries
    siblings = hub.HfApi().model_info(name, revision=revision, timeout=5).siblings or ()
    names = {file.rfilename for file in siblings}
    for alone in (ADAPTER, "config.json"):
        if alone not in names:
            continue
        settings = read_object(Path(hub.hf_hub_download(name, alone, revision=revision)))
        if alone == ADAPTER:
            refuse_adapter(settings, repr(name))
        check_config(settings, repr(name))
        break
    else:
        raise GumlabError(
            f"{name!r} on the hub has no config.json, so it is no model that transformers builds "
            f"(it holds {', '.join(sorted(names)[:5]) or 'nothing'}). Take the repository of the "
            "original model."
        )
    try:
        entry = entry_file(names, settings, repr(name))
    except GumlabError:
        is_pickled = any(other.endswith(".bin") for other in names)
        converted = _converted(name) if is_pickled and revision is None else None
        if converted is None:
            raise
        return _download(name, converted)
    weights = [entry]
    if entry.endswith(".index.json"):
        weights += shard_names(Path(hub.hf_hub_download(name, entry, revision=revision)))
    wanted = [other for other in names if _is_small(other)] + weights
    return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted))


def _is_small(name: str) -> bool:
    """Whether a file of the hub is one of settings, of the tokenizer, or has its checksum there."""
    if "/" in name:
        return name.startswith(TEMPLATES)
    return name.endswith(SMALL_FILES) or name == CODE_FILE


def _converted(name: str) -> str | None:
    """Where the hub's own bot keeps pickled weights as safetensors; None where it does not."""
    import huggingface_hub as hub
    from transformers.safetensors_conversion import get_conversion_pr_reference

    try:
        return get_conversion_pr_reference(hub.HfApi(), name)
    except Exception:  # then there is none, whatever the reason
        return None


def _reason(name: str, built_in: Collection[str], error: Exception) -> GumlabError:
    """What an error of the hub, the network or the disk means, and the way out of it."""
    nowhere = _nowhere(name, built_in)
    for cause in _causes(error):
        sentence = _of_the_hub(name, nowhere, cause) or _of_the_disk(cause)
        if sentence is not None:
            return GumlabError(sentence)
    if any(_is_of_the_network(cause) for cause in _causes(error)):
        return GumlabError(
            f"{nowhere}, and the Hugging Face hub cannot be reached ({first_line(error)}). "
            f"Look to the network and try again. {BY_HAND}"
        )
    return GumlabError(
        f"{nowhere}, and could not be fetched from the Hugging Face hub ({type(error).__name__}: "
        f"{first_line(error)}). {BY_HAND}"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _of_the_hub(name: str, nowhere: str, error: BaseException) -> str | None:
    """The sentence for an answer of the hub."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{name}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name!r} is gated: its makers ask for their licence to be accepted. Accept it at "
            f"{page}, then log in with the same account (`hf auth login`)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{nowhere}, and the Hugging Face hub knows none of that name, or it is private. "
            f"Correct the name (https://huggingface.co/models lists them). {LOG_IN} for a private "
            "one."
        )
    if isinstance(error, errors.DisabledRepoError):
        return f"The hub has closed {name!r} to everybody ({page} says why). Take another model."
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{name!r} is on the hub, but has no branch or revision of the name asked for "
            f"({first_line(error)}). See {page}/tree/main for what there is."
        )
    if isinstance(error, errors.HFValidationError):
        return (
            f"{nowhere}, and no name that the hub could have ({first_line(error)}). Give a path "
            'that exists, or a name such as "gpt2" or "Qwen/Qwen3-0.6B".'
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{nowhere}, and cannot be fetched: HF_HUB_OFFLINE is set. Unset it once where there "
            f"is a network. {BY_HAND}"
        )
    is_answer = not isinstance(error, errors.LocalEntryNotFoundError)  # in some versions it is both
    if isinstance(error, errors.HfHubHTTPError) and is_answer:
        return _of_a_status(name, error)
    return None


def _of_a_status(name: str, error: Any) -> str:
    """The sentence for an answer of the hub that is but a number."""
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return (
            f"The hub does not let you read {name!r} ({status}). {LOG_IN} with an account that may."
        )
    if status == 404:
        return f"{name!r} on the hub lacks a file ({first_line(error)}). Take another model."
    if status == 429:
        return (
            f"The hub answers no more for now (429, too many requests) about {name!r}. Wait a few "
            "minutes, or log in (`hf auth login`)."
        )
    return (
        f"The hub failed to give {name!r} (status {status}: {first_line(error)}). Try again later, "
        "or see https://status.huggingface.co."
    )


def _of_the_disk(error: BaseException) -> str | None:
    """The sentence for a cache that cannot be written."""
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    number = getattr(error, "errno", None)
    if number in NO_ROOM:
        return (
            f"The disk is full: there is no room for the model in {cache}. Make room, or set "
            "HF_HOME to a folder on a larger disk."
        )
    if number in NO_WRITING:
        return (
            f"The cache {cache} cannot be written ({first_line(error)}). Mend its rights, or set "
            "HF_HOME to a folder of your own."
        )
    return None


def _is_of_the_network(error: BaseException) -> bool:
    """Whether an error says that the hub was not reached."""
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, (ConnectionError, TimeoutError)) or library in HTTP_LIBRARIES:
        return True
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)
