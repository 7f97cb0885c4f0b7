"""`python -m mobilekd` is the command `mobilekd`."""

from mobilekd.cli import main

if __name__ == "__main__":
    main()
