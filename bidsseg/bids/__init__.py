"""Names of input and output files, and the datasets they belong to."""
