"""Processes that a test starts: they find gumlab and the tests, may fork, and may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

from helpers import ROOT

PLACES = (ROOT, ROOT / "tests", ROOT / "tests" / "integration")


def environment(**more: str) -> dict[str, str]:
    """This process's environment with those places to import from, and `more` on top."""
    given = os.environ.get("PYTHONPATH")
    paths = [*map(str, PLACES), *([given] if given else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def alone(module: str, function: str, *arguments: Any) -> Any:
    """What a function of a test module returns, called in a process of its own, which may fork.

    pytest's process has threads, and a fork inherits their locks. Arguments and what comes back are
    what JSON can hold.
    """
    code = (
        f"import json, sys, torch; torch.set_num_threads(1); from {module} import {function} as f; "
        "print(json.dumps(f(*json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments, default=str)],
        capture_output=True,
        text=True,
        env=environment(TOKENIZERS_PARALLELISM="false"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def killed(
    work: Callable[[], object],
    begun: Callable[[], object],
    pause: float | None,
    patience: float,
    how: signal.Signals = signal.SIGKILL,
) -> bool:
    """Do `work` in a forked process, and kill it, `pause` seconds after `begun()` holds.

    True where it was killed, False where it had come to its end, which must be a good one. Without
    a pause it is left alone. After `patience` seconds it is killed even if it has not begun: a fork
    may inherit a held lock. Its progress bars have a lock of their own: the usual one is shared by
    parent and child, and a child that is killed while it draws would hold it for ever.
    """
    child = os.fork()
    if not child:
        tqdm.set_lock(threading.RLock())
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    ended, status = 0, 0
    if pause is not None:
        deadline = time.monotonic() + patience
        while not ended and not begun() and time.monotonic() < deadline:
            time.sleep(0.005)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(pause)
            os.kill(child, how)
    if not ended:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == how
        return True
    assert status == 0, "the process failed by itself"
    return False
