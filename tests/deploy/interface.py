"""The portal's form (createUiDefinition.json) against its published schema and against the parameters of the template."""
import json
import pathlib
import re

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

import portal_rules
from expressions import Call, ExpressionError, Member, Text, below, calls, parsed, strings

FOLDER = pathlib.Path(__file__).parent / "schemas"
# Documented by Microsoft, and absent from the schema it publishes: element types with their keys, and keys.
COMMON = {"name", "type", "label", "toolTip", "visible", "constraints"}
NEWER_TYPES = {
    "Microsoft.Solutions.ResourceSelector": COMMON | {"resourceType", "options"},
    "Microsoft.Common.Slider": COMMON | {"min", "max", "subLabel", "defaultValue", "showStepMarkers"},
    "Microsoft.Common.TagsByResource": {"name", "type", "toolTip", "resources", "visible"},
}
NEWER_KEYS = {"multiselect", "selectAll"}


def read(uri):
    file = FOLDER / uri.split("#")[0].rsplit("/", 1)[-1]
    return Resource.from_contents(json.loads(file.read_text()), default_specification=DRAFT4)


def check(form, template):
    found = schema(form)
    declared, outputs = template["parameters"], form["parameters"]["outputs"]
    found += [f"outputs.{name}: the template has no such parameter" for name in outputs if name not in declared]
    needed = [name for name, one in declared.items() if "defaultValue" not in one and name not in outputs]
    found += [f"outputs: the template needs {name}" for name in needed]
    elements = elements_of(form)
    found += references(form, elements)
    for name, value in outputs.items():
        if name in declared:
            found += output(name, value, declared[name], elements)
    return found + sliders(form, template) + portal_rules.check(form, template, elements)


def known_to_schema(form):
    """The form without what the published schema does not know yet."""
    form = json.loads(json.dumps(form))
    config = form["parameters"].get("config", {})
    config.pop("isWizard", None)
    config.get("basics", {}).get("resourceGroup", {}).pop("allowExisting", None)
    for place in [form["parameters"], *form["parameters"]["steps"]]:
        key = "elements" if "elements" in place else "basics"
        place[key] = [one for one in place[key] if one["type"] not in NEWER_TYPES]
        for one in place[key]:
            if one.get("multiselect"):
                one["defaultValue"] = one["defaultValue"][0]
            for newer in NEWER_KEYS:
                one.pop(newer, None)
    return form


def newer(form):
    """What the schema does not know has no other keys than those documented."""
    return [f"{step}.{name}: unknown property {key}" for (step, name), one in elements_of(form).items()
            for key in one.keys() - NEWER_TYPES.get(one["type"], one.keys())]


def schema(form):
    root = read("CreateUIDefinition.MultiVm.json").contents
    validator = jsonschema.Draft4Validator(root, registry=Registry(retrieve=read))
    found = [f"{'.'.join(map(str, one.absolute_path))}: {one.message[:200]}" for one in validator.iter_errors(known_to_schema(form))]
    return found + newer(form)


# Elements that ask for nothing.
ONLY_SHOWN = {"Microsoft.Common.InfoBox", "Microsoft.Common.TextBlock"}


def elements_of(form):
    """(step, name) -> element; the step of basics is ''."""
    found = {("", one["name"]): one for one in form["parameters"]["basics"]}
    for step in form["parameters"]["steps"]:
        found |= {(step["name"], one["name"]): one for one in step["elements"]}
    return found


def used_in(tree):
    """The elements that an expression reads."""
    for one in below(tree):
        if isinstance(one, Call) and one.name == "basics":
            yield "", one.arguments[0].value
        if isinstance(one, Member) and isinstance(one.of, Call) and one.of.name == "steps":
            yield one.of.arguments[0].value, one.name


def references(form, elements):
    found, used = [], set()
    for where, value in strings(form["parameters"], "parameters"):
        if ".regex" in where:
            found += pattern(where, value)
            continue
        try:
            read_here = set(used_in(parsed(value)))
        except ExpressionError as error:
            found.append(f"{where}: the expression does not parse: {error}")
            continue
        found += [f"{where}: there is no element {step}.{name}" for step, name in read_here - elements.keys()]
        if where.startswith("parameters.outputs."):
            used |= read_here
    asked = {key for key, one in elements.items() if one["type"] not in ONLY_SHOWN}
    return found + [f"{step}.{name}: what is entered here goes nowhere" for step, name in asked - used]


def pattern(where, value):
    try:
        re.compile(value)
    except re.error as error:
        return [f"{where}: {error}"]
    return []


def output(name, value, declared, elements):
    """An element gives what its parameter takes: secrets to secrets, the same choices, the same limits, the same default."""
    found, tree = [], parsed(value)
    secure = declared["type"].lower().startswith("secure")
    read_here = [elements[key] for key in used_in(tree) if key in elements]
    hidden = any(one["type"] == "Microsoft.Common.PasswordBox" for one in read_here)
    if secure != hidden and not isinstance(tree, Text):
        found.append(f"outputs.{name}: a PasswordBox goes to a secure parameter, and nothing else does")
    if len({id(one) for one in read_here}) != 1 or calls(tree, "if"):
        return found
    element = read_here[0]
    choices = {one["label"]: one["value"] for one in element.get("constraints", {}).get("allowedValues", [])}
    if set(choices.values()) != set(declared.get("allowedValues", choices.values())):
        found.append(f"outputs.{name}: the form offers {sorted(choices.values())}, the template {sorted(declared.get('allowedValues', []))}")
    default = element.get("defaultValue", declared.get("defaultValue"))
    if choices:
        default = [choices.get(one) for one in default] if isinstance(default, list) else choices.get(default)
    if "defaultValue" in declared and not str(declared["defaultValue"]).startswith("[") and default != declared["defaultValue"]:
        found.append(f"outputs.{name}: the form's default {default!r} is not the template's {declared['defaultValue']!r}")
    return found


def sliders(form, template):
    """Sliders have the limits of their parameters."""
    elements, found = elements_of(form), []
    for name, value in form["parameters"]["outputs"].items():
        for key in used_in(parsed(value)):
            one = elements.get(key, {})
            limits = [template["parameters"].get(name, {}).get(limit) for limit in ("minValue", "maxValue")]
            if one.get("type") == "Microsoft.Common.Slider" and [one["min"], one["max"]] != limits:
                found.append(f"outputs.{name}: the slider goes from {one['min']} to {one['max']}, the template from {limits}")
    return found
