"""What is asked of a teacher. Each module has one function, `write(context) -> list[Reply]`."""

from collections.abc import Callable

from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.replies import Reply
from llm2llm.components.teacher_augment.strategies import (
    cot,
    counterfactual,
    llm2llm,
    paraphrase,
    self_guide,
    skills,
    star,
)

STRATEGIES: dict[str, Callable[[Context], list[Reply]]] = {
    "llm2llm": llm2llm.write,
    "random": llm2llm.write,  # the same, from seeds drawn at random: see `requests`
    "paraphrase": paraphrase.write,
    "counterfactual": counterfactual.write,
    "skills": skills.write,
    "cot": cot.write,
    "star": star.write,
    "self": self_guide.write,
}
"""The strategies that ask a language model; `eda` asks nobody."""
