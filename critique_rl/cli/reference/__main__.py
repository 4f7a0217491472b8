"""`python -m critique_rl.cli.reference`."""

from critique_rl.cli.reference import main

main()
