"""``python -m bidsseg``: the BIDS App."""

from bidsseg.cli.bids_app import main

if __name__ == "__main__":
    main()
