"""``python -m web`` runs the server."""

import os
import sys

from fibcore.appliance.ending import NOT_ENOUGH, is_lack_of_memory


def run() -> None:
    """Run the server. If memory runs out before logging works, one line on stderr reports it."""
    try:
        from web.server import main

        main()
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        print(NOT_ENOUGH % error, file=sys.stderr, flush=True)
        # Skip Python's shutdown, which may need memory too.
        os._exit(os.EX_OSERR)


if __name__ == "__main__":
    run()
