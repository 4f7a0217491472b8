"""Parts of the report, ready for its templates: plots, transcripts, settings, counts, warnings."""
