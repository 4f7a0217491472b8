"""The keys of a pipeline file, and the layout of a run folder. No torch."""
