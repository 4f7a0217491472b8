"""What became of the critiques that an arm asked for."""
