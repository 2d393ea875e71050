"""Many scans: which to run, in what order, in which processes."""
