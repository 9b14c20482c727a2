"""Task `e2e`: the challenge's CSV files, the hub's parquet files, and what is said without them."""

import time

import pytest
from helpers import ROOT

from gumlab.errors import GumlabError
from gumlab.tasks import Example, load_task

REAL = ROOT.parent / "shared" / "data" / "e2e"
NO_TEST = ("testset_w_refs.csv is not there: what needs a test split uses validation and says so",)
PAIRS = [
    ("name[Zizzi], food[Thai]", "Zizzi, which is Thai."),
    ("name[Café £5]", "Try Café £5."),
    ("name[Zizzi], food[Thai]", 'Zizzi serves "Thai" food.'),
]
GROUPED = [
    Example("name[Zizzi], food[Thai] ->", PAIRS[0][1], (PAIRS[0][1], PAIRS[2][1])),
    Example("name[Café £5] ->", PAIRS[1][1]),
]


def write_csv(path, pairs=PAIRS, header="mr,ref", encoding="utf-8"):
    quote = '"{}"'.format
    lines = [",".join(quote(cell.replace('"', '""')) for cell in pair) for pair in pairs]
    path.write_text("\n".join([header, *lines, ""]), encoding=encoding)


def write_parquet(path, pairs=PAIRS, columns=("meaning_representation", "human_reference")):
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    cells = dict(zip(columns, zip(*pairs, strict=True), strict=True))
    pyarrow.parquet.write_table(pyarrow.table({c: list(v) for c, v in cells.items()}), path)


def check(task, notes=()):
    assert task.metric == "bleu"
    assert task.train == [Example(f"{mr} ->", ref) for mr, ref in PAIRS]
    assert task.validation == GROUPED
    assert task.test == ([] if notes else GROUPED)
    assert task.notes == notes


def test_train_is_one_example_per_sentence_and_the_rest_is_grouped(tmp_path):
    write_csv(tmp_path / "trainset.csv")
    write_csv(tmp_path / "devset.csv", encoding="utf-8-sig")
    write_csv(tmp_path / "testset_w_refs.csv", header='"MR","ref"')
    check(load_task("e2e", tmp_path))
    check(load_task("e2e", str(tmp_path)))


def test_missing_files_leave_empty_splits_and_notes(tmp_path):
    write_csv(tmp_path / "trainset.csv")
    write_csv(tmp_path / "devset.csv")
    task = load_task("e2e", tmp_path)
    check(task, NO_TEST)
    with pytest.raises(GumlabError, match="no test examples"):
        task.split("test")
    (tmp_path / "trainset.csv").unlink()
    task = load_task("e2e", tmp_path)
    assert task.notes == ("trainset.csv is not there: the train split is empty", *NO_TEST)
    assert task.train == []
    assert task.validation == GROUPED


def test_no_file_at_all_names_the_folder_and_the_files(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(GumlabError) as error:
            load_task("e2e", folder)
        assert str(folder) in str(error.value)
        for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv", "train-*.parquet"):
            assert name in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds nothing; expected the columns mr, ref"),
        (b"mr,text\na,b\n", "holds columns mr, text; expected the columns mr, ref"),
        (b"mr,ref\n", "header but no rows"),
        (b"mr,ref\na,b\nonly one cell\n", "row 3: expected 2 cells"),
        (b"mr,ref\na,\n", "row 2: expected mr and ref filled"),
        (b"mr,ref\na,b,c\n", "row 2: expected 2 cells"),
        ("mr,ref\nCafé,b\n".encode("latin-1"), "not UTF-8"),
        (b'mr,ref\na,"b\n', "cannot be read as CSV: row 2 has a quotation mark"),
    ],
)
def test_damaged_csv_is_one_clear_sentence(content, reason, tmp_path):
    (tmp_path / "devset.csv").write_bytes(content)
    with pytest.raises(GumlabError, match=reason) as error:
        load_task("e2e", tmp_path)
    assert "devset.csv" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "{}-00000-of-00001.parquet",
        "data/{}-00000-of-00001.parquet",
        "default/{}/0000.parquet",
        "default/e2e_nlg-{}.parquet",
    ],
)
def test_the_hubs_own_files_in_a_local_folder(name, tmp_path):
    # The folder itself may be called like a split.
    folder = tmp_path / "train"
    for split in ("train", "validation", "test"):
        write_parquet(folder / name.format(split))
    check(load_task("e2e", folder))


def test_shards_are_joined_in_order_and_rows_without_reference_left_out(tmp_path):
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [*PAIRS[1:], ("name[A]", "")])
    write_parquet(tmp_path / "train-00000-of-00002.parquet", PAIRS[:1])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet")
    task = load_task("e2e", tmp_path)
    assert task.train == [Example(f"{mr} ->", ref) for mr, ref in PAIRS]
    assert task.notes[0].startswith("test*.parquet is not there: what needs a test split")
    assert task.notes[1].startswith("1 row(s) of")
    assert "an empty meaning_representation or human_reference left out" in task.notes[1]


def test_damaged_parquet_is_one_clear_sentence(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(GumlabError, match="cannot be read as parquet"):
        load_task("e2e", tmp_path)
    write_parquet(path, columns=("mr", "ref"))
    with pytest.raises(GumlabError, match="columns mr, ref; expected the columns meaning_r"):
        load_task("e2e", tmp_path)


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_the_error_says_what_to_download(offline, monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
    # An address where nothing answers: the same failure with and without a network.
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", _nowhere(huggingface_hub.HfApi.__init__))
    start = time.perf_counter()
    with pytest.raises(GumlabError, match=r"(?s)Could not reach the hub.*trainset.csv.*data_dir="):
        load_task("e2e")
    assert time.perf_counter() - start < 10


def _nowhere(init):
    return lambda self, **_: init(self, endpoint="http://127.0.0.1:9")


def test_the_hubs_columns_make_the_same_task(monkeypatch):
    import datasets
    import huggingface_hub

    columns = dict(
        zip(("meaning_representation", "human_reference"), zip(*PAIRS, strict=True), strict=True)
    )
    data = datasets.Dataset.from_dict({c: list(v) for c, v in columns.items()})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    hub = datasets.DatasetDict(train=data, validation=data, test=data)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    check(load_task("e2e"))


@pytest.mark.skipif(
    not (REAL / "trainset.csv").is_file(),
    reason="the E2E challenge's files are not beside the project",
)
def test_the_real_files():
    task = load_task("e2e", REAL)
    assert len(task.train) == 42_061
    assert len(task.validation) == 547
    assert sum(len(e.references) for e in task.validation) == 4_672
    assert task.notes == NO_TEST
    assert task.train[0].prompt.startswith("name[The Vaults], eatType[pub]")
    assert "Café Adriatic" in task.train[0].target
