import sys

from critique_rl.cli.entry import main

sys.exit(main())
