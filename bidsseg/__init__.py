"""bidsseg: brain regions of clinical MRI, on the scan's own grid.

The names in ``__all__`` are the public Python interface, documented in ``bidsseg.api``; everything else may change
without notice. They are imported when they are first used, because torch, which most of them need, takes seconds.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Assessment",
    "FoundLesions",
    "Image",
    "LesionReport",
    "Segmentation",
    "describe_lesions",
    "find_lesions",
    "label_table",
    "load_image",
    "load_model",
    "segment",
]

if TYPE_CHECKING:
    from bidsseg.api import (
        Assessment,
        FoundLesions,
        Image,
        LesionReport,
        Segmentation,
        describe_lesions,
        find_lesions,
        label_table,
        load_image,
        load_model,
        segment,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        from bidsseg import api

        return getattr(api, name)
    raise AttributeError(f"module 'bidsseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
