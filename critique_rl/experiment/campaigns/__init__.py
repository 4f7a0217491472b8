"""All runs of a pipeline: on this machine, or on a Ray cluster."""
