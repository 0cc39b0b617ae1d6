"""`python -m tomada`: the same as the command `tomada`."""

from tomada.cli import main

if __name__ == "__main__":
    main()
