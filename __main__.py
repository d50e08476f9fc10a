"""`python -m mgc`: the command line."""

from mgc.cli import main

main(prog_name="mgc")
