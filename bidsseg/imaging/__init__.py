"""Images as arrays, their grids, bias fields and registration; knows no anatomy, no BIDS and no network."""
