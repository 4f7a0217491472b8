"""What a pipeline file may say, and what a run folder holds. No torch."""
