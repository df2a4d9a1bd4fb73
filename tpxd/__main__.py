"""`python -m tpxd` is `tpxd`."""

from tpxd.cli import main

if __name__ == "__main__":
    main()
