"""`python -m boxship.daemon`."""

import sys

from boxship.daemon.main import main

sys.exit(main(sys.argv[1:]))
