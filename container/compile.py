"""Compile what a run of bidsseg imports, so that it starts quickly from a read-only image; not all that is installed.

Files are not checked against their sources, which never change in an image, so that they hold no times.
"""

import importlib
import sys
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode, compile

IMPORTED = (
    "torch nibabel SimpleITK scipy.ndimage scipy.signal nipype.pipeline.engine nipype.pipeline.plugins.multiproc "
    "nipype.pipeline.plugins.slurm nipype.interfaces.utility bids nilearn.datasets jinja2 rich.progress "
    "matplotlib.pyplot click safetensors.torch PIL.ImageDraw multiprocessing.spawn concurrent.futures.process"
)

for name in IMPORTED.split():
    importlib.import_module(name)
for module in list(sys.modules.values()):
    source = Path(getattr(module, "__file__", None) or "")  # torch has modules that name files which are not there
    if source.suffix == ".py" and source.is_file() and not Path(cache_from_source(str(source))).exists():
        compile(str(source), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
