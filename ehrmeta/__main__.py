"""Run the command line as ``python -m ehrmeta``."""

from ehrmeta.cli.main import main

if __name__ == "__main__":
    main()
