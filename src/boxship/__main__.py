"""`python -m boxship` is the `boxship` command."""

from boxship.cli.main import main

main()
