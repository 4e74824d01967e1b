"""Strategies: what a teacher is asked for.

A strategy is a file here that makes a `Strategy`, its prompt in `../prompts`, and a line in `STRATEGIES`.
"""

from llm2llm.components.teacher_augment.strategies import (
    contrast,
    cot,
    counterfactual,
    eda,
    llm2llm,
    paraphrase,
    self_guide,
    skills,
    star,
)
from llm2llm.components.teacher_augment.strategies.base import Strategy

STRATEGIES: dict[str, Strategy] = {
    "llm2llm": llm2llm.STRATEGY,
    "random": llm2llm.RANDOM,
    "eda": eda.STRATEGY,
    "star": star.STRATEGY,
    "cot": cot.STRATEGY,
    "skills": skills.STRATEGY,
    "paraphrase": paraphrase.STRATEGY,
    "counterfactual": counterfactual.STRATEGY,
    "contrast": contrast.STRATEGY,
    "self": self_guide.STRATEGY,
}
"""Name, as `strategy` has it in a config -> strategy."""
