"""Word problems, SVAMP and ASDiv, read from the installed package reasoning-core."""
