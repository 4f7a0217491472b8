"""Imported only by the server that runs are forked from (`processes`)."""

import os
import signal

from critique_rl._lazy import heavy_imports

# A SIGTERM to the process group must leave the server, which tells how a run ended. The process
# that started the runs asks them to stop, and waits for them. The signal is blocked, not ignored:
# one that comes to a new run before its first instruction is kept for it, and would else be lost.
# Ctrl-C reaches the server too, and it would end its imports with a traceback.
# First of all, so that threads which imports start block both.
STOPS = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)

with heavy_imports():
    import critique_rl.experiment.train  # noqa: F401


def heed_stops() -> None:
    """Take both again: in the forked process, from its first moment.

    A campaign stops its runs by SIGTERM, and a pool its workers. Both then wait for them.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


os.register_at_fork(after_in_child=heed_stops)
