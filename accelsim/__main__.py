"""``python -m accelsim`` is the command ``accelsim``."""

from accelsim.cli.main import main

main()
