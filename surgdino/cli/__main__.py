"""`python -m surgdino.cli`."""

import sys

from surgdino.cli.main import main

sys.exit(main())
