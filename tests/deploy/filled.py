"""A form of the portal filled in: what its outputs would be, for what a person chose and the defaults of the rest.

An element that is not shown has no value. As strict as the portal may be: a function other than coalesce does not take what has no value,
and both branches of an `if` are evaluated.
"""
import json

from expressions import Call, Index, Member, Number, Text, parsed



class Undefined(Exception):
    """A function was given what has no value."""


def boolean(one):
    if one not in (True, False, "true", "false"):
        raise Undefined(f"bool({one!r})")
    return one in (True, "true")


FUNCTIONS = {
    "and": lambda *all_of: all(map(boolean, all_of)), "not": lambda one: not boolean(one), "equals": lambda one, other: one == other,
    "int": int, "parse": json.loads, "location": lambda: "westeurope", "bool": boolean,
    "if": lambda condition, yes, no: yes if boolean(condition) else no,
}


def default(element):
    """The value of an element that nobody touched."""
    value = element.get("defaultValue")
    choices = {one["label"]: one["value"] for one in element.get("constraints", {}).get("allowedValues", [])}
    if element["type"] == "Microsoft.Common.CheckBox":
        return False
    if element["type"] == "Microsoft.Common.TagsByResource":
        return {}
    if isinstance(value, list):
        return [choices[one] for one in value]
    return choices[value] if choices else "" if value is None else value


def places(form):
    """Step -> its elements; that of basics is ''."""
    return {"": form["parameters"]["basics"], **{step["name"]: step["elements"] for step in form["parameters"]["steps"]}}


def filled(form, chosen):
    """Step -> name -> value. What is not shown has none; what it depends on may stand behind it, so the form is looked at until it rests."""
    entered = {step: {one["name"]: default(one) for one in elements} for step, elements in places(form).items()}
    for name, value in chosen.items():
        where = [step for step in entered.values() if name in step]
        assert len(where) == 1, f"{len(where)} elements are called {name}"
        where[0][name] = value
    values, before = entered, None
    while values != before:
        before = values
        values = {step: {one["name"]: entered[step][one["name"]] if is_shown(one, before) else None for one in elements}
                  for step, elements in places(form).items()}
    return values


def is_shown(element, values):
    visible = element.get("visible", True)
    return visible if isinstance(visible, bool) else boolean(evaluated(parsed(visible), values))


def outputs(form, **chosen):
    """`chosen` is by the name of an element: names are unique over all steps."""
    values = filled(form, chosen)
    found = {name: evaluated(parsed(value), values) for name, value in form["parameters"]["outputs"].items()}
    lacking = [name for name, value in found.items() if value is None]
    if lacking:
        raise Undefined(f"outputs without a value: {', '.join(lacking)}")
    return found


def evaluated(node, values):
    if isinstance(node, (Text, Number)):
        return node.value
    if isinstance(node, Member):
        of = evaluated(node.of, values)
        return None if of is None or of == "" else of[node.name]
    assert not isinstance(node, Index) and isinstance(node, Call)
    given = [evaluated(one, values) for one in node.arguments]
    if node.name == "steps":
        return values[given[0]]
    if node.name == "basics":
        return values[""][given[0]]
    if node.name == "coalesce":
        return next((one for one in given if one is not None), None)
    if any(one is None for one in given):
        raise Undefined(f"{node.name}() of what has no value")
    return FUNCTIONS[node.name](*given)
