"""The forms in which models write tool calls."""

from carpool.models.tool_forms.form import ToolForm
from carpool.models.tool_forms.hermes import HERMES
from carpool.models.tool_forms.llama3 import LLAMA3
from carpool.models.tool_forms.mistral import MISTRAL, MISTRAL_ARGS

__all__ = [
    "HERMES",
    "LLAMA3",
    "MISTRAL",
    "MISTRAL_ARGS",
    "TOOL_FORMS",
    "ToolForm",
    "named_form",
    "taught_form",
]

TOOL_FORMS = {form.name: form for form in (HERMES, LLAMA3, MISTRAL_ARGS, MISTRAL)}
"""By name. A template that shows the marks of several teaches the first of them."""


def taught_form(template: str) -> ToolForm | None:
    """The form that a chat template teaches, None for one that does not render tools."""
    taught = (form for form in TOOL_FORMS.values() if all(text in template for text in form.taught_by))
    return next(taught, None)


def named_form(name: str | None) -> ToolForm:
    """The form of this name; what is told of a model that was never up has no calls, so any does for None."""
    return HERMES if name is None else TOOL_FORMS[name]
