"""`python -m freeal`: the command line."""

from freeal.cli import main

if __name__ == "__main__":
    main()
