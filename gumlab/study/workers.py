"""Who does the runs of a study: processes here, or a Ray cluster; and how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import joblib
from tqdm.auto import tqdm


def workers(jobs: int | None) -> tuple[joblib.Parallel, int | None]:
    """What does the calls, and the threads of each of them where they share this machine.

    jobs: None for what joblib.parallel_config says. On a Ray cluster with GPUs each call gets one.
    """
    backend, default = joblib.parallel.get_active_backend()
    local, jobs = type(backend).__module__.startswith("joblib."), default if jobs is None else jobs
    if not local and getattr(backend, "ray_remote_args", ()) is None:
        import ray

        if not ray.is_initialized():
            ray.init()  # a cluster at RAY_ADDRESS, or this machine
        if gpus := int(ray.cluster_resources().get("GPU", 0)):
            backend.ray_remote_args, jobs = {"num_gpus": 1}, gpus
    count = joblib.effective_n_jobs(jobs) if local else 1
    threads = max(1, joblib.cpu_count() // count) if count > 1 else None
    return joblib.Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="n_jobs"), threads


@contextmanager
def following(total: int, done: Callable[[], int]) -> Iterator[None]:
    """A bar that follows a count, whoever raises it: other processes, or a cluster."""
    over = threading.Event()
    with tqdm(total=total, initial=done(), unit="run") as bar:

        def follow() -> None:
            while not over.wait(0.5):
                bar.update(done() - bar.n)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            bar.update(done() - bar.n)
