import sys

from critique_rl.cli import main

sys.exit(main())
