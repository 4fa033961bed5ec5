"""docs/deploy.md against the template: its table of parameters, and the roles that it lets a deploying person assign."""
import re

import template as rules

BEGIN, END = "<!-- parameters: renewed by scripts/deploy-check --write -->\n", "<!-- end of parameters -->\n"


def shown(one):
    default = one.get("defaultValue")
    if "defaultValue" not in one:
        return "required"
    if default in ("", {}):
        return "-"
    words = ", ".join(default) if isinstance(default, list) else str(default).lower() if isinstance(default, bool) else default
    return f"`{words}`"


def table(template):
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, one in template["parameters"].items():
        meaning = re.sub(r"^(Required|Optional)\. ", "", one["metadata"]["description"]).replace("|", "\\|")
        limits = f" {one['minValue']} to {one['maxValue']}." if "minValue" in one else ""
        lines.append(f"| `{name}` | {shown(one)} | {meaning}{limits} |")
    return "\n".join(lines) + "\n"


def renewed(text, template):
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + table(template) + END + rest.split(END, 1)[1]


RULES = "<!-- rules of the service -->\n", "<!-- end of rules -->\n"


def service_rules(text, known):
    """What only Azure checks: whatever a row says looks for its rule is there (`known` are names), and who says so is linked to."""
    found, rows = [], text.split(RULES[0])[1].split(RULES[1])[0].splitlines()[2:]
    for rule, here, source in (row.strip("| ").split(" | ") for row in rows):
        content = "content, see [sentinel.md]" in here
        found += [f"docs/deploy.md: {rule}: there is no {name}" for name in re.findall("`([^`]+)`", here) if name not in known]
        if not (content or "`" in here or here.startswith("nothing; see [")):
            found.append(f"docs/deploy.md: {rule}: does not say what looks for it")
        if not (content or "](https://" in source):
            found.append(f"docs/deploy.md: {rule}: has no source")
    return found


def names_of_tests(folder):
    return {name for file in folder.glob("test_*.py") for name in re.findall(r"^def (\w+)\(", file.read_text(), re.M)}


def check(text, template):
    found = [] if renewed(text, template) == text else ["docs/deploy.md: the table of parameters is old: scripts/deploy-check --write"]
    conditions = re.findall(r"GuidEquals \{([^}]*)\}", text)
    for one in conditions:
        named = {guid.strip() for guid in one.split(",")}
        if named != set(rules.ROLES):
            found.append("docs/deploy.md: the condition names other roles than the template assigns")
    if len(conditions) != 2:
        found.append("docs/deploy.md: the condition must bound both assigning and removing roles")
    for guid, (title, _) in rules.ROLES.items():
        if title not in text:
            found.append(f"docs/deploy.md: says nothing of {title}")
    return found
