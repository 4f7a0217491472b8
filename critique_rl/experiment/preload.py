"""Imported only by the server that runs are forked from (`processes`)."""

import gc
import os
import signal

# Half a million objects stay for good: looking for garbage among them costs a sixth of the imports,
# and half a second in each run, where accelerate asks for it.
gc.disable()
import critique_rl.experiment.train  # noqa: E402, F401

gc.freeze()
gc.enable()
# A SIGTERM to the process group must leave the server, which tells how a run ended. The process
# that started the runs asks them to stop, and waits for them.
signal.signal(signal.SIGTERM, signal.SIG_IGN)


def heed_sigterm() -> None:
    """End at SIGTERM again: in the forked process, from its first moment.

    A pool ends its workers by this signal, and would wait for ever for one that ignores it.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=heed_sigterm)
