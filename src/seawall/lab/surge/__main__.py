"""The driver's process."""

import sys

from seawall.lab.surge.process import main

if __name__ == "__main__":
    sys.exit(main())
