"""`imgtool train --gpus N`: one process a GPU on this machine, started by torchrun's own agent."""

import os
import signal
import sys
from collections.abc import Sequence

import torch

from imgtool.wordnet.errors import InputError, TrainingError


def launch(arguments: Sequence[str], processes: int, restarts: int, device: str | None) -> int:
    """Runs ``python -m imgtool`` with these arguments in so many processes that know of one another, and returns the
    exit code: 0, or 128 + the number of the signal that stopped them.

    When a process dies all are started anew, ``restarts`` times, and go on from the last checkpoint. Raises InputError
    for more processes than GPUs, TrainingError when it fails for good.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    gpus = torch.cuda.device_count()
    if device != "cpu" and processes > gpus:
        raise InputError(f"--gpus {processes}: torch sees {gpus} CUDA GPUs here; --device cpu makes CPU processes")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=f"imgtool-{os.getpid()}",
        max_restarts=restarts,
        monitor_interval=0.5,
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        elastic_launch(config, sys.executable)("-m", "imgtool", *arguments)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        first = error.get_first_failure()[1]
        if first.exitcode in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            return first.exitcode
        raise TrainingError(
            f"process {first.local_rank} of {processes} failed ({_cause(first.exitcode)}) and was not started again: "
            "its message stands above; --resume goes on from the last checkpoint"
        ) from None
    return 0


def _cause(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
