"""The E2E NLG challenge: a restaurant's meaning representation -> a sentence about it.

Read from a local folder, in the challenge's own CSV files or in the hub's parquet files, or
fetched from the Hugging Face hub. Novikova et al. 2017, CC BY-SA 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._files import Hub, fetch, find, missing, read

CSV_COLUMNS = ("mr", "ref")
CSV_FILES = dict(zip(SPLITS, ("trainset.csv", "devset.csv", "testset_w_refs.csv"), strict=True))
HUB_COLUMNS = ("meaning_representation", "human_reference")
HUB = Hub(
    "tuetschek/e2e_nlg",
    f"{', '.join(CSV_FILES.values())} from github.com/tuetschek/e2e-dataset",
    revision="refs/convert/parquet",
)
EXPECTED = (
    f"Expected {', '.join(CSV_FILES.values())} (columns {', '.join(CSV_COLUMNS)}), or "
    f"{', '.join(f'{s}-*.parquet' for s in SPLITS)} (columns {', '.join(HUB_COLUMNS)})."
)


def load(data_dir: str | Path | None = None) -> Task:
    """The E2E task; train has one example per sentence, the other splits one per distinct `mr`.

    `data_dir` is a folder with trainset.csv, devset.csv and testset_w_refs.csv (columns mr, ref),
    or with the hub's train-*.parquet, validation-*.parquet and test-*.parquet; without it the
    data comes from the hub. A split whose file is missing is empty and `notes` says so. Raises
    GumlabError where no file is there, a file cannot be read, or the hub cannot be reached.
    """
    folder = Path(data_dir or "").expanduser()
    own = {s: [folder / name] for s, name in CSV_FILES.items() if (folder / name).is_file()}
    if data_dir is not None and own:
        notes = missing(own, CSV_FILES)
        pairs = {s: list(read(sources, CSV_COLUMNS)) for s, sources in own.items()}
    else:
        found, notes = fetch(HUB) if data_dir is None else find(folder, ("parquet",), EXPECTED)
        # The hub's files have gaps: a split published without references has empty ones.
        pairs = {s: list(read(sources, HUB_COLUMNS, gaps=notes)) for s, sources in found.items()}
    task = Task("e2e", "bleu", notes=tuple(notes))
    task.train = [Example(f"{mr} ->", ref) for mr, ref in pairs.get("train", ())]
    task.validation, task.test = (_grouped(pairs.get(s, ())) for s in ("validation", "test"))
    return task


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[Example]:
    """One example per distinct `mr`, in order of first appearance, with all its references."""
    references: dict[str, list[str]] = {}
    for mr, ref in pairs:
        references.setdefault(mr, []).append(ref)
    return [Example(f"{mr} ->", refs[0], tuple(refs)) for mr, refs in references.items()]
