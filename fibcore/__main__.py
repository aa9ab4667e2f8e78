"""``python -m fibcore`` is the ``fibcore`` command."""

import sys

from fibcore.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
