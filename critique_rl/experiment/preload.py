"""What the server imports that runs are forked from (`processes`), and nothing else does."""

import signal

import critique_rl.experiment.train  # noqa: F401

# A SIGTERM to the whole group must leave the server, which tells how a run ended: who started it
# asks the runs to stop, and waits for them.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
