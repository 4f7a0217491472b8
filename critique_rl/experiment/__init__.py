"""One YAML file -> trained and judged runs."""
