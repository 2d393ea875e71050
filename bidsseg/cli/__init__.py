"""The commands: the BIDS App ``bidsseg`` and ``brainseg-cli``."""
