"""What the real tasks share: files found by their split's name, rows read with checks, the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._readers import Table, open_table, what_is_missing
from gumlab.tasks._texts import Place, text_or_nothing

HUB_TIMEOUT = 5.0  # seconds
SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
}

Sources = dict[str, list[Any]]  # by split, for those that are there: paths, or the hub's tables


class Hub(NamedTuple):
    """Where a data set is on the Hugging Face hub, and what to download by hand without it."""

    name: str
    by_hand: str
    config: str | None = None
    revision: str | None = None


def split_of(name: str) -> str | None:
    """The split that a file's name tells, if it tells one.

    >>> split_of("MTS-Dialog-TrainingSet"), split_of("wiki.valid"), split_of("0000")
    ('train', 'validation', None)
    """
    for word in re.findall("[a-z]+", name.lower()):
        split = SPLIT_OF_WORD.get(re.sub(r"(set|data)$", "", word))
        if split is not None:
            return split
    return None


def find_files(
    data_dir: str | Path, endings: Sequence[str], expected: str
) -> tuple[Sources, list[str]]:
    """Find the files of each split in a folder.

    Parameters
    ----------
    data_dir : str or Path
        A folder, or a file, which then is read alone.
    endings : sequence of str
        Without the dot. Only files of the first ending that is there are taken.
    expected : str
        A sentence for the error, on what should have been there.

    Returns
    -------
    sources : dict of list of Path
        By split, in the order of the files' names.
    notes : list of str
        On what is not there.

    Raises
    ------
    GumlabError
        If there is no such file, or the folder holds several data sets.

    Notes
    -----
    A split is told by the name of a file, or by that of its folder, as in the hub's export. The
    search goes no deeper than two folders, as `data_dir` may be a whole home directory. Where no
    name tells a split all is train. Hidden files and folders, an editor's copies, do not count.
    """
    folder = Path(data_dir).expanduser()
    if folder.is_file():
        split = split_of(folder.stem) or "train"
        return {split: [folder]}, [f"{folder.name} is read alone, as {split}"]
    if not folder.is_dir():
        raise GumlabError(f"There is no folder {str(folder)!r}. {expected}")
    for number, ending in enumerate(endings):
        by_split, homes, unnamed = _by_split(folder, ending)
        if len(homes) > 1:  # a copy of a hub repository
            raise GumlabError(
                f"{str(folder)!r} holds several data sets ({', '.join(sorted(homes))}). Give the "
                "folder of one."
            )
        if by_split:
            sources = {split: by_split[split] for split in SPLITS if split in by_split}
            notes = notes_on_missing(sources, {split: f"{split}*.{ending}" for split in SPLITS})
            if unnamed:
                notes.append(f"{len(unnamed)} *.{ending} file(s) that tell no split are left out")
            for other in endings[number + 1 :]:
                elsewhere, _, _ = _by_split(folder, other)
                names = [path.name for split in elsewhere for path in elsewhere[split]]
                if elsewhere.keys() - by_split.keys():
                    notes.append(f"{', '.join(names)} left out: only *.{ending} is read here")
            return sources, notes
        if unnamed:
            note = "no file name tells a split (train, validation, test): all is train"
            return {"train": unnamed}, [note]
    names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(folder.iterdir())]
    more = ", ..." if len(names) > 8 else ""
    raise GumlabError(
        f"None of the task's files is in {str(folder)!r}, which holds "
        f"{', '.join(names[:8]) or 'nothing'}{more}. {expected}"
    )


def _by_split(folder: Path, ending: str) -> tuple[Sources, set[str], list[Path]]:
    """The files by split, the folders of the data sets they belong to, and files of no split."""
    by_split: Sources = {}
    homes: set[str] = set()
    unnamed: list[Path] = []
    for depth in ("", "*/", "*/*/"):
        for path in visible_files(folder, f"{depth}*.{ending}"):
            inside = path.relative_to(folder)
            split_of_folder = split_of(inside.parent.name)
            split = split_of(inside.stem) or split_of_folder
            if split is None:
                unnamed.append(path)
                continue
            by_split.setdefault(split, []).append(path)
            homes.add(str(inside.parent.parent if split_of_folder else inside.parent))
    return by_split, homes, unnamed


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern in order, without an editor's hidden copies, and without folders."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def notes_on_missing(present: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """A note for each split that is not present; `names` are those of the splits' files."""
    notes = []
    for split in SPLITS:
        if split in present:
            continue
        if split == "test" and "validation" in present:
            consequence = "what needs a test split uses validation and says so"
        else:
            consequence = f"the {split} split is empty"
        notes.append(f"{names[split]} is not there: {consequence}")
    return notes


def fetch_from_hub(hub: Hub) -> tuple[Sources, list[str]]:
    """The hub's tables by split, and notes on what is not there.

    Raises GumlabError within seconds where they cannot be had, saying what to download.
    """
    with _reaching(hub):
        import datasets

        tables = datasets.load_dataset(hub.name, hub.config, revision=hub.revision)
    sources = {split: [tables[split]] for split in SPLITS if split in tables}
    return sources, notes_on_missing(
        sources, {split: f"the hub's {split} split" for split in SPLITS}
    )


def fetch_folder(hub: Hub) -> Path:
    """The folder of the hub's files, in its cache: what a user could give as data_dir.

    Raises GumlabError as `fetch_from_hub` does.
    """
    with _reaching(hub):
        import huggingface_hub

        home = huggingface_hub.snapshot_download(
            hub.name,
            repo_type="dataset",
            revision=hub.revision,
            allow_patterns=f"{hub.config}/*",
        )
    return Path(home) / str(hub.config)


@contextmanager
def _reaching(hub: Hub) -> Iterator[None]:
    """Asks the hub first, and turns whatever goes wrong into one sentence."""
    try:
        import huggingface_hub

        # Asked first because a download retries for half a minute where there is no network.
        # Offline mode needs no asking: it fails at once, or finds what was downloaded before.
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            huggingface_hub.HfApi().dataset_info(hub.name, timeout=HUB_TIMEOUT)
        yield
    except Exception as error:  # of the hub, the network, the disk: all end in the same advice
        raise GumlabError(
            f"Could not reach the hub for {hub.name!r} ({type(error).__name__}): download "
            f"{hub.by_hand} and pass data_dir=<their folder>."
        ) from error


def fill(
    task: Task,
    sources: Sources,
    notes: list[str],
    examples: Callable[[list[Any], list[str]], Iterable[Example]],
) -> Task:
    """The task with the examples of each split's sources, and all notes.

    `examples` makes them from one split's sources, and may add to the notes.
    """
    for split, tables in sources.items():
        getattr(task, split).extend(examples(tables, notes))
    task.notes = tuple(notes)
    return task


def read_rows(
    sources: Iterable[Any],
    columns: Sequence[str],
    optional: Sequence[str] = (),
    gaps: list[str] | None = None,
    read: Callable[[Any, Place], Any] = text_or_nothing,
) -> Iterator[tuple[Any, ...]]:
    """The named columns of the rows of files (`KINDS`), or of tables in memory.

    Parameters
    ----------
    sources : iterable of Path, datasets.Dataset, DataFrame or list of dict
    columns : sequence of str
        Bars part a column's possible names ("dialogue|text"): the first that is there counts.
    optional : sequence of str, default ()
        More columns, in the same form, which may be missing or empty.
    gaps : list of str, optional
        Where a row with an empty column is left out and noted. Without it such a row is an error.
    read : callable, default text_or_nothing
        What makes its value of a cell and its place, or refuses it.

    Yields
    ------
    tuple
        The values of `columns`, then of `optional`; None where an optional column is not there.

    Raises
    ------
    GumlabError
        If a file is damaged, has no rows, lacks a column or has it twice, and for a cell that
        `read` refuses.
    """
    for source in sources:
        table = source if isinstance(source, Table) else open_table(source)
        found = [_name_in(table, names) for names in columns]
        # a column that is nowhere is looked for by its first name, and not found
        optional_names = [_name_in(table, names) or names for names in optional]
        required_names = [name for name in found if name is not None]
        if len(required_names) < len(columns):
            raise GumlabError(what_is_missing(table, columns))
        rows_read = 0
        rows_left_out = 0
        for where, row in table.rows:
            rows_read += 1
            required = [
                read(row.get(name), Place(table.name, where, name)) for name in required_names
            ]
            is_full = all(cell is not None and str(cell).strip() for cell in required)
            if not is_full and gaps is None:
                raise GumlabError(
                    f"{table.name}, {where}: expected {' and '.join(columns)} filled; found "
                    f"{list(row.values())!r:.80}. Mend or remove the row."
                )
            if not is_full:
                rows_left_out += 1
                continue
            more = [
                None if row.get(name) is None else read(row[name], Place(table.name, where, name))
                for name in optional_names
            ]
            yield (*required, *more)
        if not rows_read:
            raise GumlabError(
                f"{table.name} has a header but no rows. Add rows, or download it again."
            )
        if rows_left_out and gaps is not None:
            gaps.append(
                f"{rows_left_out:,} row(s) of {table.name} with an empty {' or '.join(columns)} "
                "left out"
            )


def _name_in(table: Table, names: str) -> str | None:
    """The first of a column's possible names, parted by bars, that is in the header."""
    for name in names.split("|"):
        if table.header.count(name) > 1:
            raise GumlabError(
                f"{table.name} has the column {name} twice, and one would be lost. Rename or "
                "remove one of them."
            )
        if name in table.labels:
            raise GumlabError(
                f"The column {name} holds class labels, numbers that stand for names. Write the "
                f"names: features[{name!r}].int2str(number)."
            )
        if name in table.header:
            return name
    return None
