"""Imported only by the server that runs are forked from (`processes`)."""

import gc
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
