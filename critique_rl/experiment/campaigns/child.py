"""`python -m critique_rl.experiment.campaigns.child PARENT <words>`: the command `critique-rl
<words>`, killed by the kernel where the process PARENT, which started it, ends.

A Ray worker is killed with its node's raylet. A run that it left behind would train on, hold the
lock of its folder, and keep out the task that continues it elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process where its parent ends. Only Linux can.

    Args:
        parent: Process id of the parent at the start.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before.
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    sys.argv = ["critique-rl", *sys.argv[2:]]
    runpy.run_module("critique_rl", run_name="__main__")
