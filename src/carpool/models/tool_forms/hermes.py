"""The form of the Hermes and Qwen models, and of models that were taught none.

<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
"""

from carpool.models.tool_forms.form import ToolForm

HERMES = ToolForm(
    name="hermes",
    opening="<tool_call>",
    first=('\n{"name": "',),
    next=('\n<tool_call>\n{"name": "',),
    before_arguments='", "arguments": ',
    after_arguments="}\n</tool_call>",
    marks=("<tool_call>", "</tool_call>"),
    taught_by=("tools", "<tool_call>"),
)
