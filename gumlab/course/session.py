"""`start` sets a notebook up the same way everywhere; `environment` says what is missing."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from gumlab.errors import check_seed, check_whole
from gumlab.importing import uncollected

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet


def start(seed: int = 0, threads: int | None = None) -> None:
    """Set seeds, threads and the look of plots and tables, quieten libraries, and print one line.

    `gumlab.load` finds the device by itself.

    Parameters
    ----------
    seed : int, default 0
        The seed of Python's, numpy's and torch's random numbers.
    threads : int, optional
        How many threads torch uses. By default all cores but one, at most four: a thread that has
        to wait for a core that others use makes a small model's step several times slower than one
        thread would be.
    """
    check_seed(seed)
    if threads is not None:
        check_whole("threads", threads)
    with uncollected():
        import joblib
        import matplotlib
        import numpy as np
        import transformers
        from cycler import cycler

        from gumlab.course.plots.figure import BLUE, GREEN, ORANGE, RED
        from gumlab.course.tables import show_tables_so

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    cores = joblib.cpu_count()  # of a container, where there is one
    torch.set_num_threads(threads or max(1, min(4, cores - 1)))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED]),
            "axes.spines.right": False,
            "axes.spines.top": False,
        }
    )
    show_tables_so()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"gumlab ready: seed {seed}, device {device}")


class Finding(NamedTuple):
    """One thing that the notebooks need: whether it is there, and what to say of it."""

    good: bool
    text: str


def environment() -> bool:
    """Print one [OK] or [FAIL] line for each thing that the notebooks need.

    Returns
    -------
    bool
        Whether nothing is missing.
    """
    findings = [_python(), *_packages(), _models()]
    for finding in findings:
        mark = "[OK]  " if finding.good else "[FAIL]"
        print(f"{mark} {finding.text}")
    return all(finding.good for finding in findings)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    is_allowed = sys.version_info >= (3, 11)
    need = "" if is_allowed else ": 3.11 or newer is needed"
    return Finding(is_allowed, f"Python {version}{need}")


def _packages() -> Iterator[Finding]:
    """What gumlab itself and its notebooks (the extra `lab`) ask for, with the versions allowed."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    for line in requires("gumlab") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        is_needed = marker is None or marker.evaluate({"extra": "lab"})
        if is_needed and requirement.name != "jupyterlab":  # the front end may live elsewhere
            yield _package(requirement.name, requirement.specifier)


def _package(name: str, specifier: SpecifierSet) -> Finding:
    """Whether a package is there, in a version that is allowed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version(name)
    except PackageNotFoundError:
        what = f"{name} is not installed"
        is_allowed = False
    else:
        what = f"{name} {installed}"
        is_allowed = specifier.contains(installed, prereleases=True)
    if is_allowed:
        return Finding(True, what)
    wanted = f"{name}{specifier}"
    return Finding(False, f"{what}: run pip install '{wanted}', then restart the kernel")


def _models() -> Finding:
    from gumlab.io.loading import ASSETS, BUILT_IN

    missing = [name for name in BUILT_IN if not (ASSETS / name / "model.safetensors").exists()]
    if missing:
        return Finding(
            False, f"built-in models {', '.join(missing)} are not there: run make assets"
        )
    return Finding(True, f"built-in models: {', '.join(BUILT_IN)}")
