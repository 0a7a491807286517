"""Recording of what stands at named sites of a network: hidden units, q, k, v, attention maps, the residual stream.

``print(sites(model))`` says what there is, ``record`` shows it for a batch, ``stream`` for a whole data set in bounded
memory, and ``top_examples`` says which inputs excite which units most. Networks are taken as they come: timm's,
torchvision's, open_clip's, torchaudio's, PyTorch's own transformers, and the book's.
"""

from thesis_kit.recording.batches import record, sites
from thesis_kit.recording.reducers import Moments, Reducer, Rows, Statistics, Top, TopExamples
from thesis_kit.recording.sites import Site, Sites
from thesis_kit.recording.streaming import stream, top_examples

__all__ = [
    "Moments", "Reducer", "Rows", "Site", "Sites", "Statistics", "Top", "TopExamples", "record", "sites", "stream",
    "top_examples",
]  # fmt: skip
