"""What would make a run's result say little, found before the first run trains."""
