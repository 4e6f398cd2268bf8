"""python -m vae: the command line of `vae.cli`."""

import sys

from .cli import main

sys.exit(main())
