"""`start`: one line that sets a notebook up the same way everywhere."""

from __future__ import annotations

import os
import random

import torch


def start(seed: int = 0, threads: int | None = None) -> torch.device:
    """Set the seeds and the threads, find the device, quieten libraries; prints one line."""
    import transformers

    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or min(4, os.cpu_count() or 1))
    transformers.logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"gumlab ready: seed {seed}, device {device.type}")
    return device
