"""The E2E NLG challenge: a restaurant's meaning representation -> a sentence about it.

Read from a local folder, in the challenge's own CSV files or in the hub's parquet files, or
fetched from the Hugging Face hub. Novikova et al. 2017, CC BY-SA 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._files import (
    Hub,
    Sources,
    fetch_from_hub,
    find_files,
    notes_on_missing,
    read_rows,
    split_of,
)

CSV_COLUMNS = ("mr", "ref")
CSV_FILES = {
    "train": "trainset.csv",
    "validation": "devset.csv",
    "test": "testset_w_refs.csv",
}
HUB_COLUMNS = ("meaning_representation", "human_reference")
HUB = Hub(
    name="tuetschek/e2e_nlg",
    by_hand=f"{', '.join(CSV_FILES.values())} from github.com/tuetschek/e2e-dataset",
    revision="refs/convert/parquet",
)
EXPECTED = (
    f"Expected {', '.join(CSV_FILES.values())} (columns {', '.join(CSV_COLUMNS)}), or "
    f"{', '.join(f'{split}-*.parquet' for split in SPLITS)} (columns {', '.join(HUB_COLUMNS)})."
)

Pair = tuple[str, str]  # a meaning representation, and a sentence about it


def load(data_dir: str | Path | None = None) -> Task:
    """The task `e2e`: train has one example a sentence, the others one a meaning representation.

    Parameters
    ----------
    data_dir : str or Path, optional
        A folder with trainset.csv, devset.csv and testset_w_refs.csv (columns mr, ref), or with
        the hub's train-*.parquet, validation-*.parquet and test-*.parquet. Without it the data
        comes from the hub.

    Returns
    -------
    Task
        With the metric "bleu". A split whose file is missing is empty, and `Task.notes` says so.

    Raises
    ------
    GumlabError
        If no file is there, a file cannot be read, or the hub cannot be reached.

    References
    ----------
    Novikova et al. 2017, "The E2E Dataset: New Challenges For End-to-End Generation".
    """
    sources: Sources = {}
    if data_dir is not None:
        sources = _challenge_files(Path(data_dir).expanduser())
    if sources:
        notes = notes_on_missing(sources, CSV_FILES)
        pairs = {split: list(read_rows(paths, CSV_COLUMNS)) for split, paths in sources.items()}
    else:
        if data_dir is None:
            sources, notes = fetch_from_hub(HUB)
        else:
            sources, notes = find_files(data_dir, ("parquet",), EXPECTED)
        # The hub's files have gaps: a split published without references has empty ones.
        pairs = {
            split: list(read_rows(tables, HUB_COLUMNS, gaps=notes))
            for split, tables in sources.items()
        }
    return Task(
        name="e2e",
        metric="bleu",
        train=[Example(f"{meaning} ->", sentence) for meaning, sentence in pairs.get("train", ())],
        validation=_grouped(pairs.get("validation", ())),
        test=_grouped(pairs.get("test", ())),
        notes=tuple(notes),
    )


def _challenge_files(folder: Path) -> Sources:
    """The challenge's own CSV files, those that are there; a CSV file by itself is one of them."""
    if folder.is_file() and folder.suffix.lower() == ".csv":
        return {split_of(folder.stem) or "train": [folder]}
    paths = {split: folder / name for split, name in CSV_FILES.items()}
    return {split: [path] for split, path in paths.items() if path.is_file()}


def _grouped(pairs: Iterable[Pair]) -> list[Example]:
    """One example a meaning representation, in order of appearance, with all its references."""
    references: dict[str, list[str]] = {}
    for meaning, sentence in pairs:
        references.setdefault(meaning, []).append(sentence)
    return [
        Example(f"{meaning} ->", sentences[0], tuple(sentences))
        for meaning, sentences in references.items()
    ]
