"""`python -m imagesafety.command`."""

import sys

from imagesafety.command import main

sys.exit(main())
