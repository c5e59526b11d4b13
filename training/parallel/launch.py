"""`imgtool train --gpus N`: one process per GPU on this machine, started by torchrun's elastic agent."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

import torch

from imgtool.wordnet.errors import InputError, TrainingError

RESTARTS = "IMGTOOL_RESTARTS"  # environment variable: how many times the processes were restarted
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def launch(arguments: Sequence[str], processes: int, restarts: int, device: str | None) -> int:
    """Runs ``python -m imgtool`` with these arguments in ``processes`` processes that share the training.

    Returns the exit code: 0, 2 for wrong input (which the processes have reported), or 128 + the number of the signal
    that stopped them. When a process dies, all are restarted from the last checkpoint, at most ``restarts`` times.
    Raises InputError for more processes than GPUs, TrainingError when a process dies after the last restart.
    """
    gpus = torch.cuda.device_count()
    if device != "cpu" and processes > gpus:
        raise InputError(f"--gpus {processes}: torch finds {gpus} CUDA GPUs; use --device cpu for CPU processes")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    run_id = f"imgtool-{os.getpid()}"
    for restart in range(restarts + 1):
        os.environ[RESTARTS] = str(restart)
        rank, code = _run(arguments, processes, run_id)
        if code in (0, InputError.exit_code, *STOPPED):
            return code
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if restart < restarts:
            print(f"process {rank} died ({cause}): restarting all {processes}", file=sys.stderr, flush=True)
    raise TrainingError(
        f"process {rank} of {processes} failed after {restarts} restarts ({cause}): see its message above; "
        "--resume continues from the last checkpoint"
    )


def _run(arguments: Sequence[str], processes: int, run_id: str) -> tuple[int, int]:
    """Returns rank and exit code of the first process that failed (minus the signal's number if a signal killed it);
    code 0 if none failed."""
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
    # the agent logs every failure at length; the process that failed has already reported the error in one line
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)("-m", "imgtool", *arguments)
    except SignalException as error:
        return 0, 128 + int(error.sigval)
    except ChildFailedError as error:
        first = error.get_first_failure()[1]
        return first.local_rank, first.exitcode
    return 0, 0
