"""A form of the portal filled in: what its outputs would be, for what a person chose and the defaults of the rest."""
import json

from expressions import Call, Index, Member, Number, Text, parsed

FUNCTIONS = {
    "and": lambda *all_of: all(all_of), "not": lambda one: not one, "equals": lambda one, other: one == other,
    "int": int, "parse": json.loads, "location": lambda: "westeurope",
}


def default(element):
    """The value of an element that nobody touched."""
    value = element.get("defaultValue")
    choices = {one["label"]: one["value"] for one in element.get("constraints", {}).get("allowedValues", [])}
    if element["type"] == "Microsoft.Common.CheckBox":
        return False
    if isinstance(value, list):
        return [choices[one] for one in value]
    return choices[value] if choices else "" if value is None else value


def outputs(form, **chosen):
    """`chosen` is by the name of an element: names are unique over all steps."""
    values = {"": {one["name"]: default(one) for one in form["parameters"]["basics"]}}
    for step in form["parameters"]["steps"]:
        values[step["name"]] = {one["name"]: default(one) for one in step["elements"]}
    for name, value in chosen.items():
        where = [step for step in values.values() if name in step]
        assert len(where) == 1, f"{len(where)} elements are called {name}"
        where[0][name] = value
    return {name: evaluated(parsed(value), values) for name, value in form["parameters"]["outputs"].items()}


def evaluated(node, values):
    if isinstance(node, (Text, Number)):
        return node.value
    if isinstance(node, Member):
        return evaluated(node.of, values)[node.name]
    assert not isinstance(node, Index) and isinstance(node, Call)
    if node.name == "if":
        condition, yes, no = node.arguments
        return evaluated(yes if evaluated(condition, values) else no, values)
    given = [evaluated(one, values) for one in node.arguments]
    if node.name == "steps":
        return values[given[0]]
    return values[""][given[0]] if node.name == "basics" else FUNCTIONS[node.name](*given)
