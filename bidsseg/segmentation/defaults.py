"""What every way into the segmentation does unless it is asked otherwise. No imports: ``--help`` reads it."""

BIAS_CORRECTION_OF_DATASETS = True
"N4 before the network, in ``bidsseg participant``, ``bidsseg.segment`` and ``SegmentRegions``."
BIAS_CORRECTION_OF_SINGLE_SCANS = False
"The same, in ``brainseg-cli``."
