"""The E2E NLG challenge: a restaurant's meaning representation -> a sentence about it.

Read from a local folder, in the challenge's own CSV files or in the hub's parquet files, or
fetched from the Hugging Face hub. Novikova et al. 2017, CC BY-SA 4.0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS, Example, Task

HUB_NAME, HUB_REVISION = "tuetschek/e2e_nlg", "refs/convert/parquet"
HUB_COLUMNS = ("meaning_representation", "human_reference")
CSV_COLUMNS = ("mr", "ref")
CSV_FILES = dict(zip(SPLITS, ("trainset.csv", "devset.csv", "testset_w_refs.csv"), strict=True))
HUB_TIMEOUT = 5.0  # seconds

Pairs = Iterable[tuple[str, str]]


def load(data_dir: str | Path | None = None) -> Task:
    """The E2E task; train has one example per sentence, the other splits one per distinct `mr`.

    `data_dir` is a folder with trainset.csv, devset.csv and testset_w_refs.csv (columns mr, ref),
    or with the hub's train-*.parquet, validation-*.parquet and test-*.parquet; without it the
    data comes from the hub. A split whose file is missing is empty and `notes` says so. Raises
    GumlabError where no file is there, a file cannot be read, or the hub cannot be reached.
    """
    if data_dir is None:
        return _task(_hub_pairs(), dict.fromkeys(SPLITS, "the hub's copy"))
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise GumlabError(f"There is no folder {str(folder)!r}. {_expected()}")
    found = {s: folder / name for s, name in CSV_FILES.items() if (folder / name).is_file()}
    if found:
        return _task({s: _csv_pairs(path) for s, path in found.items()}, CSV_FILES)
    shards = {s: paths for s in SPLITS if (paths := _shards(folder, s))}
    if not shards:
        raise GumlabError(f"None of the task's files is in {str(folder)!r}. {_expected()}")
    pairs = {s: [p for path in paths for p in _parquet_pairs(path)] for s, paths in shards.items()}
    return _task(pairs, {s: f"{s}-*.parquet" for s in SPLITS})


def _expected() -> str:
    return (
        f"Expected {', '.join(CSV_FILES.values())} (columns {', '.join(CSV_COLUMNS)}), or "
        f"{', '.join(f'{s}-*.parquet' for s in SPLITS)} (columns {', '.join(HUB_COLUMNS)})."
    )


def _task(pairs: dict[str, Pairs], sources: dict[str, str]) -> Task:
    """Group the pairs of each split that is there; note each split that is not."""
    notes = []
    for split in SPLITS:
        if split not in pairs:
            note = f"{sources[split]} is not there: "
            if split == "test" and "validation" in pairs:
                note += "what needs a test split uses validation and says so"
            else:
                note += f"the {split} split is empty"
            notes.append(note)
    return Task(
        name="e2e",
        metric="bleu",
        train=[Example(_prompt(mr), ref) for mr, ref in pairs.get("train", ())],
        validation=_grouped(pairs.get("validation", ())),
        test=_grouped(pairs.get("test", ())),
        notes=tuple(notes),
    )


def _prompt(mr: str) -> str:
    return f"{mr} ->"


def _grouped(pairs: Pairs) -> list[Example]:
    """One example per distinct `mr`, in order of first appearance, with all its references."""
    references: dict[str, list[str]] = {}
    for mr, ref in pairs:
        references.setdefault(mr, []).append(ref)
    return [Example(_prompt(mr), refs[0], tuple(refs)) for mr, refs in references.items()]


def _csv_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        # utf-8-sig: a file that went through a spreadsheet may begin with a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except UnicodeDecodeError as error:
        raise GumlabError(
            f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8, or download it again."
        ) from error
    except (csv.Error, OSError) as error:
        raise GumlabError(f"{path} cannot be read as CSV: {error}. Download it again.") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if any(name not in header for name in CSV_COLUMNS):
        have = f"columns {', '.join(header)}" if header else "nothing"
        raise GumlabError(f"{path} holds {have}; expected the columns {', '.join(CSV_COLUMNS)}.")
    mr, ref = (header.index(name) for name in CSV_COLUMNS)
    pairs = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue  # an empty line, at the end as a rule
        if len(row) != len(header) or not row[mr].strip() or not row[ref].strip():
            raise GumlabError(
                f"{path}, row {number}: expected {len(header)} cells, {' and '.join(CSV_COLUMNS)} "
                f"filled; found {row!r:.80}. Mend or remove the row."
            )
        pairs.append((row[mr], row[ref]))
    return _not_empty(pairs, path)


def _not_empty(pairs: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    if not pairs:
        raise GumlabError(f"{path} has a header but no rows. Download it again.")
    return pairs


def _shards(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split: data/train-0-of-1.parquet or default/train/0000.parquet.

    The hub names the split in the file or in its folder, depending on who made the file.
    """
    return [
        path
        for depth in ("", "*/", "*/*/")  # no deeper: the folder may be a whole home directory
        for path in sorted(folder.glob(f"{depth}*.parquet"))
        if split in (*path.stem.split("-"), path.relative_to(folder).parent.name)
    ]


def _parquet_pairs(path: Path) -> list[tuple[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        if any(name not in names for name in HUB_COLUMNS):
            raise GumlabError(
                f"{path} has the columns {', '.join(names)}; expected {', '.join(HUB_COLUMNS)}."
            )
        table = pyarrow.parquet.ParquetFile(path).read(columns=list(HUB_COLUMNS)).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise GumlabError(
            f"{path} cannot be read as parquet: {error}. Download it again."
        ) from error
    return _not_empty(list(_filled(zip(*(table[c] for c in HUB_COLUMNS), strict=True))), path)


def _filled(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """The pairs without the hub's gaps (a split published without references has empty ones)."""
    return ((mr, ref) for mr, ref in pairs if mr and ref)


def _hub_pairs() -> dict[str, Pairs]:
    """Fetch the data set from the hub, or say within seconds that it cannot be reached."""
    try:
        import datasets
        import huggingface_hub

        # Asked first because `datasets` retries for half a minute where there is no network.
        # Offline mode needs no asking: it fails at once, or finds what was downloaded before.
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            huggingface_hub.HfApi().dataset_info(HUB_NAME, timeout=HUB_TIMEOUT)
        data = datasets.load_dataset(HUB_NAME, revision=HUB_REVISION)
        columns = {s: [data[s][c] for c in HUB_COLUMNS] for s in SPLITS if s in data}
        return {s: list(_filled(zip(*c, strict=True))) for s, c in columns.items()}
    except Exception as error:  # of the hub, the network, the disk: all end in the same advice
        raise GumlabError(
            f"Could not reach the hub for {HUB_NAME!r} ({type(error).__name__}): download "
            f"{', '.join(CSV_FILES.values())} from github.com/tuetschek/e2e-dataset and pass "
            "data_dir=<their folder>."
        ) from error
