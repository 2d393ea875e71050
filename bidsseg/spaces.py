"""Names of spaces. No imports: ``--help`` reads it."""

TEMPLATE = "MNI152NLin2009aSym"
"The common space, as BIDS and TemplateFlow call it."
