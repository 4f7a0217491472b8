"""Imported only by the server that runs are forked from (`processes`)."""

import signal

import critique_rl.experiment.train  # noqa: F401

# A SIGTERM to the process group must leave the server, which tells how a run ended. The process
# that started the runs asks them to stop, and waits for them.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
