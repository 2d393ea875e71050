"""bidsseg: brain regions of clinical MRI, on the scan's own grid."""

__version__ = "0.1.0"
