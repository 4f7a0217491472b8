"""Published claims: what a pipeline tests, by which rules, and the reports on them."""
