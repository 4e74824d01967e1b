"""Task forms: how a form's questions are asked, and its answers read and graded.

A form is a file here that makes a `Form`, and a line in `FORMS`.
"""

from llm2llm.components.shared.tasks.forms import classification, json, multiple_choice, numeric, text
from llm2llm.components.shared.tasks.forms.base import Form
from llm2llm.components.shared.tasks.forms.metrics import ACCURACY, CLASS_METRICS, Metric

FORMS: dict[str, Form] = {
    "classification": classification.FORM,
    "json": json.FORM,
    "multiple_choice": multiple_choice.FORM,
    "numeric": numeric.FORM,
    "text": text.FORM,
}
"""Name, as `task.form` has it -> form."""


def metrics_of(form: str) -> dict[str, Metric]:
    """The metrics that tasks of a form can be decided by, by name."""
    return {
        "accuracy": ACCURACY,
        **(CLASS_METRICS if FORMS[form].has_classes else {}),
        **FORMS[form].metrics,
    }


METRICS = {name: metric for form in FORMS for name, metric in metrics_of(form).items()}
"""All of them, by name."""


def forms_with_field(field: str) -> tuple[str, ...]:
    """The names of the forms whose tasks may have a field that not all have, such as `rationale`."""
    return tuple(name for name, form in FORMS.items() if field in form.takes)


def forms_with(has: str) -> tuple[str, ...]:
    """The names of the forms that say yes to a property, such as `has_classes`."""
    return tuple(name for name, form in FORMS.items() if getattr(form, has))
