"""`python -m octavo` is the command line."""

from .cli import main

main()
