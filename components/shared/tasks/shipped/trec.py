"""TREC (Li and Roth 2002): what kind of answer does a question ask for? Six coarse classes.

question  How did serfdom develop in and then leave Russia ?
target    description
"""

from llm2llm.components.shared.tasks.task import Columns, Task

TASK = Task(
    name="trec",
    form="classification",
    # In the order of the data set's class indices 0 to 5: ABBR, ENTY, DESC, HUM, LOC, NUM.
    labels=["abbreviation", "entity", "description", "human", "location", "number"],
    instruction="What kind of answer does the question ask for?",
    answer_cue="Kind",
    description="Short factual questions, each with the kind of answer that it asks for: an abbreviation, an entity, a "
    "description, a human (person or group), a location or a number.",
    columns=Columns(question="text", answer="coarse_label", answer_numbers="from_zero"),
    max_new_tokens=8,
)
