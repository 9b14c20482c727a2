"""`start` sets a notebook up the same way everywhere; `environment` says what is missing."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import torch


def start(seed: int = 0, threads: int | None = None) -> None:
    """Set the seeds, the threads and the plot style, find the device, quieten libraries.

    threads: by default all cores but one, at most four: a thread that has to wait for a core that
    others use makes a small model's step several times slower than one thread would be. Prints one
    line. `gumlab.load` uses the device by itself.
    """
    import joblib
    import matplotlib
    import numpy as np
    import transformers
    from cycler import cycler

    from gumlab.course.plots.figure import BLUE, GREEN, ORANGE, RED

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or max(1, min(4, joblib.cpu_count() - 1)))  # knows containers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    colours = cycler(color=[BLUE, ORANGE, GREEN, RED])
    matplotlib.rcParams.update({"axes.prop_cycle": colours, "axes.spines.right": False})
    matplotlib.rcParams["axes.spines.top"] = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"gumlab ready: seed {seed}, device {device}")


def environment() -> bool:
    """Print one [OK] or [FAIL] line for each thing the notebooks need; True if none is missing."""
    lines = [*_python(), *_packages(), *_models()]
    for good, text in lines:
        print(f"{'[OK]  ' if good else '[FAIL]'} {text}")
    return all(good for good, _ in lines)


def _python() -> Iterator[tuple[bool, str]]:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield good, f"Python {found}" + ("" if good else ": 3.11 or newer is needed")


def _packages() -> Iterator[tuple[bool, str]]:
    """What gumlab itself and its notebooks (the extra `lab`) ask for, with the versions allowed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    for wanted in map(Requirement, requires("gumlab") or ()):
        for_notebooks = not wanted.marker or wanted.marker.evaluate({"extra": "lab"})
        if not for_notebooks or wanted.name == "jupyterlab":  # the front end may live elsewhere
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            found = None
        good = found is not None and wanted.specifier.contains(found, prereleases=True)
        what = f"{wanted.name} {found or 'is not installed'}"
        need = f"{wanted.name}{wanted.specifier}"
        yield good, what if good else f"{what}: run pip install '{need}', then restart the kernel"


def _models() -> Iterator[tuple[bool, str]]:
    from gumlab.io.loading import ASSETS, BUILT_IN

    missing = [name for name in BUILT_IN if not (ASSETS / name / "model.safetensors").exists()]
    if missing:
        yield False, f"built-in models {', '.join(missing)} are not there: run make assets"
    else:
        yield True, f"built-in models: {', '.join(BUILT_IN)}"
