"""`python -m sparsecomm` is the command `sparsecomm`."""

import sys

from sparsecomm.launch.cli import main

sys.exit(main())
