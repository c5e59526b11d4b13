"""`imgtool train --gpus N`: one process a GPU on this machine, started by torchrun's own agent."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

import torch

from imgtool.wordnet.errors import InputError, TrainingError

RESTARTS = "IMGTOOL_RESTARTS"  # in the environment: how often the processes have been started anew
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def launch(arguments: Sequence[str], processes: int, restarts: int, device: str | None) -> int:
    """Runs ``python -m imgtool`` with these arguments in so many processes that know of one another; returns the exit
    code: 0, 2 for wrong input (the processes have said which), or 128 + the number of the signal that stopped them.

    When a process dies all are started anew, ``restarts`` times, and go on from the last checkpoint. Raises InputError
    for more processes than GPUs, TrainingError when it fails for good.
    """
    gpus = torch.cuda.device_count()
    if device != "cpu" and processes > gpus:
        raise InputError(f"--gpus {processes}: torch sees {gpus} CUDA GPUs here; --device cpu makes CPU processes")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    run_id = f"imgtool-{os.getpid()}"
    for restart in range(restarts + 1):
        os.environ[RESTARTS] = str(restart)
        rank, code = _run(arguments, processes, run_id)
        if code in (0, InputError.exit_code, *STOPPED):
            return code
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if restart < restarts:
            print(f"process {rank} died ({cause}); all {processes} start again", file=sys.stderr, flush=True)
    raise TrainingError(
        f"process {rank} of {processes} failed ({cause}), after {restarts} restarts: its message stands above; "
        "--resume goes on from the last checkpoint"
    )


def _run(arguments: Sequence[str], processes: int, run_id: str) -> tuple[int, int]:
    """Rank and exit code (negative: minus the signal's number) of the first process that failed; code 0 if none did."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=run_id,
        max_restarts=0,
        monitor_interval=0.5,
    )
    # the agent logs every failure at length; what went wrong is said in a line by the process that it happened to
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)("-m", "imgtool", *arguments)
    except SignalException as error:
        return 0, 128 + int(error.sigval)
    except ChildFailedError as error:
        first = error.get_first_failure()[1]
        return first.local_rank, first.exitcode
    return 0, 0
