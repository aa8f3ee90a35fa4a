"""`python -m pie_fast.cli`."""

from pie_fast.cli import main

main()
