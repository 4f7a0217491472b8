"""`python -m critique_rl`: the console script `critique-rl`."""

import sys

from critique_rl.cli.entry import main

sys.exit(main())
