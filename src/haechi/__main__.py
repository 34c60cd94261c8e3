"""`python -m haechi` is the same as the command `haechi`."""

from haechi.cli import main

if __name__ == "__main__":
    main()
