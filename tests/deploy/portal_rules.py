"""What arm-ttk and the portal have against a form (createUiDefinition.json), offline. The names in front are those of arm-ttk's tests:
https://learn.microsoft.com/azure/azure-resource-manager/templates/createuidefinition-test-cases."""
import re

from expressions import Call, ExpressionError, Member, below, parsed, strings

HANDLER, VERSION = "Microsoft.Azure.CreateUIDef", "0.1.2-preview"
SCHEMA = "https://schema.management.azure.com/schemas/0.1.2-preview/CreateUIDefinition.MultiVm.json#"
WITHOUT_TIP = {"Microsoft.Common.InfoBox", "Microsoft.Common.Section", "Microsoft.Common.TextBlock"}
LENGTH = re.compile(r"^\^\(\?=\.\{(\d+),(\d+)\}\$\)")
TOKEN_MIN = 12
# Parameters that the form does not offer, and why.
NOT_OFFERED = {
    "cpu": "a quarter of a core is enough for any account that was seen; more is for who measured it",
    "appCron": "each minute suits; less often is the job",
    "jobTimeoutInMinutes": "thirty minutes suit; the next execution goes on where one stopped",
    "correlation": "the tenant's own setting suits; another choice is for who works in the Defender portal",
    "ruleIdSalt": "only for who deletes rules and deploys them again on the same day",
    "statusToken": "each deployment makes a new one, so nobody has to think of one",
}


def check(form, template, elements):
    found = head(form) + basics(form, template) + offered(form, template)
    for (step, name), one in elements.items():
        found += [f"{step}.{name}: {line}" for line in of_element(one)]
    found += lengths(form, template, elements) + blanks(form["parameters"], "parameters")
    for where, node in objects(form["parameters"], "parameters"):
        for one in node.get("validations", []):
            if not one.get("message"):
                found.append(f"{where}.validations: Validations-Must-Have-Message")
    return found + undefined(form, elements)


def head(form):
    wanted = {"handler": HANDLER, "version": VERSION, "$schema": SCHEMA}
    return [f"{key}: Handler-Must-Be-Correct: {value} is wanted" for key, value in wanted.items() if form.get(key) != value]


def basics(form, template):
    """A group that is there can be chosen, and no region that lacks what is made there."""
    found, config = [], form["parameters"].get("config", {}).get("basics", {})
    if config.get("resourceGroup", {}).get("allowExisting") is not True:
        # https://learn.microsoft.com/azure/azure-resource-manager/managed-applications/create-uidefinition-overview
        found.append("config.basics.resourceGroup.allowExisting: without it only a new or empty group can be chosen, and nobody can deploy again")
    lacking = sorted(regional(template) - set(config.get("location", {}).get("resourceTypes", [])))
    if lacking:
        found.append(f"config.basics.location.resourceTypes: regions without {', '.join(lacking)} are offered")
    if form["parameters"]["outputs"].get("location") != "[location()]":
        found.append("outputs.location: Location-Should-Be-In-Outputs")
    return found


def regional(template):
    """Types of the resources that go to the region that was chosen; what a storage account has inside it goes with the account."""
    found = set()
    for one in template["resources"]:
        inside = one.get("properties", {}).get("template", {})
        given = one.get("properties", {}).get("parameters", {}).get("location", {})
        if inside and given.get("value") == "[parameters('location')]":
            found |= regional(inside)
        elif one.get("location") == "[parameters('location')]":
            found.add(one["type"])
    return found


def offered(form, template):
    outputs, declared = form["parameters"]["outputs"], template["parameters"]
    forgotten = [name for name, one in declared.items() if "defaultValue" in one and name not in outputs and name not in NOT_OFFERED]
    found = [f"outputs: {name} is neither offered nor left out for a reason" for name in forgotten]
    return found + [f"outputs: {name} is offered, or gone: NOT_OFFERED names it" for name in NOT_OFFERED if name in outputs or name not in declared]


def of_element(one):
    kind, constraints = one["type"], one.get("constraints", {})
    if kind not in WITHOUT_TIP and not str(one.get("toolTip", "")).strip():
        yield "Tooltips-Should-Be-Present"
    if kind == "Microsoft.Common.TextBox":
        missing = [key for key in ("regex", "validationMessage") if not constraints.get(key)]
        if missing:
            yield f"Textboxes-Are-Well-Formed: no {' and no '.join(missing)}"
        elif not LENGTH.match(constraints["regex"]):
            yield "Textboxes-Are-Well-Formed: the regex does not begin with a length, ^(?=.{0,9}$)"
    if kind == "Microsoft.Common.PasswordBox":
        if one.get("options", {}).get("hideConfirmation"):
            yield "Credential-Confirmation-Should-Not-Be-Hidden"
        least = sum(int(number) for number in re.findall(r"\{(\d+)", constraints.get("regex", "")))
        if least < TOKEN_MIN:
            yield f"PasswordBoxes-Must-Have-Min-Length: {least}, {TOKEN_MIN} are wanted"
        if not constraints.get("validationMessage"):
            yield "PasswordBoxes-Must-Have-Min-Length: no validationMessage"


def lengths(form, template, elements):
    """What the form lets through is no longer than the parameter may be, and no shorter."""
    found = []
    for name, value in form["parameters"]["outputs"].items():
        for key in read_by(value):
            regex = elements.get(key, {}).get("constraints", {}).get("regex", "")
            declared, limits = template["parameters"].get(name, {}), LENGTH.match(regex)
            if limits and (int(limits[2]) > declared.get("maxLength", 0) or int(limits[1]) < declared.get("minLength", 0)):
                found.append(f"outputs.{name}: the form takes {limits[1]} to {limits[2]} characters, "
                             f"the template {declared.get('minLength', 0)} to {declared.get('maxLength', 0)}")
    return found


def blanks(node, where):
    """CreateUIDefinition-Must-Not-Have-Blanks."""
    if isinstance(node, dict):
        return [line for key, one in node.items() for line in blanks(one, f"{where}.{key}")] if node else [f"{where}: is blank"]
    if isinstance(node, list):
        return [line for place, one in enumerate(node) for line in blanks(one, f"{where}[{place}]")] if node else [f"{where}: is blank"]
    return [f"{where}: is blank"] if node is None or (isinstance(node, str) and not node.strip()) else []


def objects(node, where):
    if isinstance(node, dict):
        yield where, node
        for key, one in node.items():
            yield from objects(one, f"{where}.{key}")
    elif isinstance(node, list):
        for place, one in enumerate(node):
            yield from objects(one, f"{where}[{place}]")


def element_read(node):
    """(step, name) where a node is `basics('name')` or `steps('step').name`."""
    if isinstance(node, Call) and node.name == "basics":
        return "", node.arguments[0].value
    if isinstance(node, Member) and isinstance(node.of, Call) and node.of.name == "steps":
        return node.of.arguments[0].value, node.name
    return None


def read_by(value):
    try:
        return {element_read(node) for node in below(parsed(value))} - {None}
    except ExpressionError:
        return set()


def bare(node):
    """The elements that are read without coalesce around them, and whether they stand inside a function."""
    def walk(node, inside):
        if element_read(node):
            yield element_read(node), inside
        elif isinstance(node, Member):
            yield from walk(node.of, inside)
        elif isinstance(node, Call) and node.name != "coalesce":
            for one in node.arguments:
                yield from walk(one, True)
        elif isinstance(node, Call):
            # The last one is what stands for the others.
            yield from walk(node.arguments[-1], True)
    return walk(node, False)


def undefined(form, elements):
    """An element that is not shown has no value, and an expression with such a value in it has none either: coalesce.
    https://learn.microsoft.com/azure/azure-resource-manager/managed-applications/create-ui-definition-logical-functions"""
    found = []
    for where, value in strings(form["parameters"], "parameters"):
        if ".regex" in where:
            continue
        try:
            read = list(bare(parsed(value)))
        except ExpressionError:
            continue
        for (step, name), inside in read:
            hidden = elements.get((step, name), {}).get("visible", True) is not True
            if inside or hidden:
                found.append(f"{where}: {step}.{name} may have no value: coalesce")
    return found
