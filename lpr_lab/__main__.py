"""`python -m lpr_lab` is `lpr-lab`."""

from lpr_lab.cli import main

main()
