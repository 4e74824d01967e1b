"""SST-2 (Socher et al. 2013): is a sentence of a film review positive or negative?

question  that loves its characters and communicates something rather beautiful about human nature
target    positive
"""

from llm2llm.components.shared.tasks.task import Columns, Task

TASK = Task(
    name="sst2",
    form="classification",
    labels=["negative", "positive"],  # in the order of the data set's class indices
    instruction="Is the sentence from a film review positive or negative?",
    question_cue="Sentence",
    answer_cue="Sentiment",
    description="Sentences and phrases from film reviews, positive or negative about the film.",
    columns=Columns(question="sentence", answer="label", answer_numbers="from_zero"),
    max_new_tokens=4,
)
