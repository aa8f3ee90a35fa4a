"""`python -m pie_fast`: the command line."""

from pie_fast.cli import main

main()
