"""Exit codes of ``bidsseg`` and ``brainseg-cli``."""

EXIT_OK = 0
EXIT_SOME_FAILED = 1
CLI_USAGE = 2
"Wrong usage of ``brainseg-cli``, as of most commands."
EXIT_INVALID_BIDS = 16
EXIT_NOTHING_SELECTED = 18
APP_USAGE = 64
"Wrong usage of ``bidsseg``, as BIDS Apps have it."
EXIT_LESIONS_FAILED = 65
EXIT_DEFECT = 70
EXIT_CANNOT_WRITE = 73
EXIT_INTERRUPTED = 130
