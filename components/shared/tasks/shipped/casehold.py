"""CaseHOLD (Zheng et al. 2021): which of five holdings does the citing text cite?

question  ... the court held that the plaintiff had standing. See Doe v. Roe (<HOLDING>).
target    C
"""

from llm2llm.components.shared.tasks.task import Columns, Task

TASK = Task(
    name="casehold",
    form="multiple_choice",
    choice_count=5,
    instruction="Which holding statement belongs where the citing text says <HOLDING>? Answer with its letter.",
    question_cue="Citing text",
    description="Excerpts of US court opinions that cite a case, with the citation's holding replaced by <HOLDING>, "
    "and five holding statements of which exactly one is the one cited. The others are plausible holdings.",
    columns=Columns(
        question="citing_prompt",
        answer="label",
        answer_numbers="from_zero",
        choices=["holding_0", "holding_1", "holding_2", "holding_3", "holding_4"],
    ),
    max_new_tokens=4,
)
