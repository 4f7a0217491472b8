"""`critique-rl doctor`: the command, checks of this machine and the pipeline, and an endpoint's."""
