"""The page of a comparison: charts, transcripts, settings, warnings."""
