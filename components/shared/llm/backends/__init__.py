"""Where a request to a language model is answered: endpoints, engines and models in this process.

A backend is a module here and a line in `BACKENDS`. The module's `opened(settings)` is a context manager: it opens the
model, and gives the function that asks it (`client.Send`).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What the rest of llm2llm must know of a backend without loading its libraries."""

    about: str
    """Who answers, in a few words, for the help."""
    module: str
    """Of this package; imported when the first request is asked."""
    in_pod: bool = False
    """Whether the model runs in the stage's own pod; else it is at an endpoint, with a URL and a key."""
    image: Literal["cpu", "train", "vllm"] = "cpu"
    """The image that has its libraries, and the extra of the package that installs them."""
    tells_logprobs: bool = False
    """Whether it can tell the log-probabilities of an answer's tokens."""
    fills_gpu: bool = False
    """Whether it needs a GPU and takes nearly all of its memory, so that nothing else fits beside it."""


BACKENDS: dict[str, Backend] = {
    "openai": Backend(about="any OpenAI-compatible chat endpoint", module="openai", tells_logprobs=True),
    "batch": Backend(about="the endpoint's batch API: slower, half the price", module="openai_batch"),
    "vllm": Backend(
        about="a model in the stage's own pod, on GPUs", module="vllm", in_pod=True, image="vllm", fills_gpu=True
    ),
    "transformers": Backend(about="a model in the stage's own pod", module="transformers", in_pod=True, image="train"),
}
"""Name, as `teacher` has it in a config -> backend."""
