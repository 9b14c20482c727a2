"""Who does the runs of a study: processes here, or a Ray cluster; and how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import joblib
from tqdm.auto import tqdm

from gumlab.errors import GumlabError, check_whole


def check_jobs(jobs: int | None) -> None:
    """Raise GumlabError for a number of processes that cannot be."""
    if jobs is not None and (jobs == 0 or check_whole("jobs", jobs, least=-(2**16)) == 0):
        raise GumlabError("jobs must be 1 or more, or -1 for one a core; got 0.")


def worker_pool(jobs: int | None) -> tuple[joblib.Parallel, int | None]:
    """What does the calls, and the threads of each where several share this machine.

    Parameters
    ----------
    jobs : int, optional
        Processes; None: what `joblib.parallel_config` says, and one where it says nothing.

    Returns
    -------
    pool : joblib.Parallel
        It starts a call when a worker is free. On a Ray cluster with GPUs each call gets one.
    threads : int or None
        This machine's, divided by the processes; None for one process, and on a cluster.
    """
    backend, configured_jobs = joblib.parallel.get_active_backend()
    if jobs is None:
        jobs = configured_jobs
    threads = None
    if type(backend).__module__.startswith("joblib."):  # on this machine
        processes = joblib.effective_n_jobs(jobs)
        if processes > 1:
            threads = max(1, joblib.cpu_count() // processes)
    elif getattr(backend, "ray_remote_args", ()) is None:  # Ray's, and nobody gave it options
        gpus = _cluster_gpus()
        if gpus:
            backend.ray_remote_args = {"num_gpus": 1}
            jobs = gpus
    return joblib.Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="n_jobs"), threads


def _cluster_gpus() -> int:
    """The GPUs of the Ray cluster: that at RAY_ADDRESS, or this machine."""
    import ray

    if not ray.is_initialized():
        ray.init()
    return int(ray.cluster_resources().get("GPU", 0))


@contextmanager
def progress_bar(total: int, done: Callable[[], int]) -> Iterator[None]:
    """A bar that follows a count, whoever raises it: other processes, or a cluster.

    Parameters
    ----------
    total : int
        What the count ends at.
    done : callable
        Gives the count; asked twice a second, from a thread of its own.
    """
    over = threading.Event()
    with tqdm(total=total, initial=done(), unit="run") as bar:

        def catch_up() -> None:
            bar.update(done() - bar.n)

        def follow() -> None:
            while not over.wait(0.5):
                catch_up()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            catch_up()
