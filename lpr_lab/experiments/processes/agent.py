"""Torchrun's agent for one phase of one run, as a process of its own: starts the ranks and ends all when one fails.

    python -m lpr_lab.experiments.processes.agent PROCESSES FOLDER PHASE RUN

Its standard input, which the ranks inherit, is a pipe that `launch` holds open: when it ends, every rank stops by
itself. FOLDER takes what each rank says of how it ended.
"""

import logging
import sys
from pathlib import Path
from uuid import uuid4

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lpr_lab.experiments.processes.outcomes import write_exit_codes

WORKER = "lpr_lab.experiments.processes.worker"


def main(processes: str, folder: str, phase: str, run: str) -> int:
    """Run the phase on so many ranks of this machine; where one fails, write the exit codes into the folder."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # `launch` says it in one sentence
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=int(processes),
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )
    try:
        elastic_launch(config, sys.executable)("-m", WORKER, folder, phase, run)
    except ChildFailedError as error:
        write_exit_codes(Path(folder), {rank: failure.exitcode for rank, failure in error.failures.items()})
        return 1
    except SignalException:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
