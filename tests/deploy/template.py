"""What must hold for an ARM template and every template nested in it. Each finding is one line: where, and what is wrong."""
import re

import schemas
from expressions import (FUNCTIONS, Call, ExpressionError, Member, Text, below, calls, is_expression, named_in, parsed,
                         printed, strings)

SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
NESTED = "Microsoft.Resources/deployments"
SECRET_NAME = re.compile(r"token$|secret$|password|apikey|connectionstring", re.I)
SECRET_FUNCTIONS = ("listKeys", "listSecrets", "listAccountSas", "list")
# Previews that have no newer version.
PREVIEWS = {"Microsoft.Insights/diagnosticSettings@2021-05-01-preview"}
SUFFIXES = re.compile(r"(core\.windows\.net|core\.usgovcloudapi\.net|vault\.azure\.net|vault\.usgovcloudapi\.net|management\.azure\.com"
                      r"|ingest\.monitor\.azure\.(com|us)|login\.microsoftonline\.(com|us))", re.I)
FIXED_ID = re.compile(r"/subscriptions/[0-9a-f]{8}-|/resourceGroups/[a-z0-9_-]{2,}/", re.I)
# Role -> the type of the only thing it may be assigned on.
ROLES = {
    "3913510d-42f4-4e42-8a64-420c390055eb": ("Monitoring Metrics Publisher", "Microsoft.Insights/dataCollectionRules"),
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": ("Storage Blob Data Contributor", "Microsoft.Storage/storageAccounts/blobServices/containers"),
    "4633458b-17de-408a-b874-0445c86b69e6": ("Key Vault Secrets User", "Microsoft.KeyVault/vaults/secrets"),
    "73c42c96-874c-492b-b04d-ab87d138a893": ("Log Analytics Reader", "Microsoft.OperationalInsights/workspaces"),
}
# What the engine's TemplateResource has:
# https://learn.microsoft.com/azure/azure-resource-manager/templates/resource-declaration and syntax.
MEMBERS = {
    "apiVersion", "comments", "condition", "copy", "dependsOn", "extendedLocation", "identity", "kind", "location", "managedBy", "name",
    "plan", "properties", "resourceGroup", "resources", "scope", "sku", "subscriptionId", "tags", "type", "zones",
}
# Where a secure parameter may go: a secret of the vault, a secret of the app, a secure parameter of a module, a condition.
SECRET_PLACES = re.compile(r"\.properties\.value$|\.configuration\.secrets\[\d+\]\.value$|\.condition$")


def check(template, path="$"):
    """All findings of a template and of what is nested in it."""
    one = Template(template, path)
    found = one.shape() + one.expressions()
    if not one.broken:
        found += one.names() + one.parameters() + one.secrets() + one.resources() + one.dependencies()
    for place, resource in enumerate(template.get("resources", [])):
        if resource.get("type") == NESTED:
            inside = f"{path}.resources[{place}].properties.template"
            found += check(resource["properties"]["template"], inside)
    return found


class Template:
    def __init__(self, template, path):
        self.template, self.path = template, path
        self.declared = template.get("parameters", {})
        self.variables = template.get("variables", {})
        self.secure = {name for name, one in self.declared.items() if one.get("type", "").lower().startswith("secure")}
        self.trees = {}
        for where, value in strings(template, path):
            try:
                self.trees[where] = parsed(value)
            except ExpressionError as error:
                self.trees[where] = error
        self.broken = any(isinstance(tree, ExpressionError) for tree in self.trees.values())

    def shape(self):
        found = []
        if self.template.get("$schema") != SCHEMA:
            found.append(f"{self.path}.$schema: must be {SCHEMA}")
        known = {"$schema", "contentVersion", "metadata", "parameters", "variables", "resources", "outputs"}
        return found + [f"{self.path}: unknown section {key}" for key in self.template.keys() - known]

    def expressions(self):
        found = []
        for where, tree in self.trees.items():
            if isinstance(tree, ExpressionError):
                found.append(f"{where}: the expression does not parse: {tree}")
                continue
            found += [f"{where}: there is no function {one.name}" for one in calls(tree) if one.name not in FUNCTIONS]
        return found

    def names(self):
        found, used = [], {"parameters": set(), "variables": set()}
        declared = {"parameters": self.declared, "variables": self.variables}
        for where, tree in self.trees.items():
            for kind in used:
                named = named_in(tree, kind)
                used[kind] |= named
                found += [f"{where}: {kind} has no {name}" for name in sorted(named - declared[kind].keys())]
        for kind, names in declared.items():
            found += [f"{self.path}.{kind}.{name}: is never used" for name in names if name not in used[kind]]
        return found

    def parameters(self):
        found = []
        for name, one in self.declared.items():
            where, kind, default = f"{self.path}.parameters.{name}", one.get("type", "").lower(), one.get("defaultValue")
            if len(one.get("metadata", {}).get("description", "")) < 10:
                found.append(f"{where}: has no description")
            limited = {"minValue", "maxValue"} <= one.keys() or one.get("allowedValues")
            if kind == "int" and not limited and self.path == "$":
                found.append(f"{where}: a number needs minValue and maxValue")
            allowed = one.get("allowedValues")
            defaults = default if isinstance(default, list) else [default]
            if allowed and default is not None and not set(defaults) <= set(allowed):
                found.append(f"{where}: its default is none of the allowed values")
            if SECRET_NAME.search(name) and not kind.startswith("secure"):
                found.append(f"{where}: a secret must be a securestring")
            if kind.startswith("secure") and default not in (None, "", "[newGuid()]"):
                found.append(f"{where}: a secret must not have a default")
            if default is not None and not is_expression(default) and SUFFIXES.search(str(default)):
                found.append(f"{where}: the name of one cloud")
        for name, one in self.template.get("outputs", {}).items():
            if self.path == "$" and not one.get("metadata", {}).get("description"):
                found.append(f"{self.path}.outputs.{name}: has no description")
        return found

    def secrets(self):
        """Where secure parameters and functions that read secrets stand."""
        found, outputs = [], f"{self.path}.outputs."
        for where, tree in self.trees.items():
            secrets = named_in(tree, "parameters") & self.secure
            reading = [one.name for one in calls(tree, *SECRET_FUNCTIONS)]
            if where.startswith(outputs) and (secrets or reading):
                found.append(f"{where}: an output must not hold a secret")
            elif secrets and not (SECRET_PLACES.search(where) or self.is_secure_of_module(where)):
                found.append(f"{where}: the secret {', '.join(sorted(secrets))} would be readable here")
            elif reading:
                found.append(f"{where}: reads keys or secrets; identities need none")
        for name, one in self.template.get("outputs", {}).items():
            if one.get("type", "").lower().startswith("secure"):
                found.append(f"{outputs}{name}: an output must not hold a secret")
        return found

    def is_secure_of_module(self, where):
        match = re.search(r"\.resources\[(\d+)\]\.properties\.parameters\.(\w+)\.value$", where)
        if not match:
            return False
        nested = self.template["resources"][int(match.group(1))]["properties"].get("template", {})
        return nested.get("parameters", {}).get(match.group(2), {}).get("type", "").lower().startswith("secure")

    def resources(self):
        found, seen = [], set()
        for place, resource in enumerate(self.template.get("resources", [])):
            where = f"{self.path}.resources[{place}]"
            found += schemas.findings(resource, where)
            key = (resource.get("type"), resource.get("name"), str(resource.get("scope")))
            if key in seen:
                found.append(f"{where}: is there twice")
            seen.add(key)
            found += self.plain_rules(resource, where)
            if resource.get("type") == NESTED:
                found += module_rules(resource, where)
            if resource.get("type") == "Microsoft.Authorization/roleAssignments":
                found += self.role_rules(resource, where)
        return found

    def plain_rules(self, resource, where):
        found, version = [], resource.get("apiVersion", "")
        # The engine: "Could not find member 'etag' on object of type 'TemplateResource'".
        found += [f"{where}.{key}: no member of a resource of a template; the engine refuses it" for key in resource.keys() - MEMBERS]
        if version.endswith("-preview") and f"{resource['type']}@{version}" not in PREVIEWS:
            found.append(f"{where}.apiVersion: a preview")
        location = resource.get("location")
        if location is not None and not is_expression(location) and location != "global":
            found.append(f"{where}.location: a fixed region")
        for below_where, value in strings(resource, where):
            if FIXED_ID.search(value):
                found.append(f"{below_where}: a fixed id of a resource")
            if SUFFIXES.search(value):
                found.append(f"{below_where}: the name of one cloud; environment() knows it")
        return found + [f"{blank}: is blank" for blank in blanks(resource, where)]

    def role_rules(self, resource, where):
        """A role is one of four, on the one type of thing it is meant for, under a name that is the same each time."""
        found, properties = [], resource.get("properties", {})
        role = self.resolved(parsed(properties.get("roleDefinitionId", "")))
        guid = role.arguments[-1].value if isinstance(role, Call) and isinstance(role.arguments[-1], Text) else "?"
        if guid not in ROLES:
            return [f"{where}: {guid} is no role that opship needs"]
        if printed(role) != f"subscriptionresourceid('Microsoft.Authorization/roleDefinitions', '{guid}')":
            found.append(f"{where}: the role must be given by subscriptionResourceId('Microsoft.Authorization/roleDefinitions', ID)")
        title, wanted = ROLES[guid]
        scope = parsed(resource.get("scope", ""))
        kind = scope.arguments[0].value if isinstance(scope, Call) and scope.name == "resourceId" else "the resource group"
        if kind != wanted:
            found.append(f"{where}: {title} belongs on {wanted}, not on {kind}")
        name = parsed(resource["name"])
        if not (isinstance(name, Call) and name.name == "guid" and printed(scope) == printed(name.arguments[0]) and len(name.arguments) == 3):
            found.append(f"{where}: its name must be guid(scope, principal, role), or a second deployment fails")
        if properties.get("principalType") != "ServicePrincipal":
            found.append(f"{where}: principalType must be ServicePrincipal, or a new identity is not found yet")
        return found

    def resolved(self, tree):
        """A tree with variables that are plain texts put in."""
        if isinstance(tree, Call) and tree.name == "variables":
            value = self.variables.get(tree.arguments[0].value)
            return Text(value) if isinstance(value, str) and not is_expression(value) else tree
        if isinstance(tree, Call):
            return Call(tree.name, tuple(map(self.resolved, tree.arguments)))
        return tree

    def dependencies(self):
        """`dependsOn` and `reference` name something that this template makes; what is referred to is also waited for."""
        found = []
        made = {identity(resource): place for place, resource in enumerate(self.template.get("resources", []))}
        types = {resource.get("type") for resource in self.template.get("resources", [])}
        for place, resource in enumerate(self.template.get("resources", [])):
            where = f"{self.path}.resources[{place}]"
            waits = {target(parsed(one)): one for one in resource.get("dependsOn", [])}
            found += [f"{where}.dependsOn: nothing here is {one}" for key, one in waits.items() if key not in made]
            if made.get(identity(resource)) == place and identity(resource) in waits:
                found.append(f"{where}.dependsOn: it waits for itself")
            for key in self.referred(resource, types) - waits.keys() - {identity(resource)}:
                if key in made:
                    found.append(f"{where}: refers to {key} and does not wait for it")
        for where, tree in self.trees.items():
            for one in calls(tree, "reference"):
                key = target(one.arguments[0])
                if key and key.split("(")[0].lower() == NESTED.lower() and key not in made:
                    found.append(f"{where}: refers to {key}, which is not here")
        return found + self.outputs_of_modules()

    def referred(self, resource, types):
        """Resources of this template whose id or state a resource uses, through variables too."""
        found, left = set(), [parsed(value) for _, value in strings({k: v for k, v in resource.items() if k != "dependsOn"})]
        while left:
            tree = left.pop()
            found |= {target(one) for one in calls(tree, "resourceId", "extensionResourceId")}
            for name in named_in(tree, "variables"):
                left += [parsed(value) for _, value in strings(self.variables.get(name))]
        own = {one for one in found if one and one.split("(")[0] in types}
        # An id that a module was given for something another module makes is not a resource of this template.
        return own

    def outputs_of_modules(self):
        nested = {identity(one): one for one in self.template.get("resources", []) if one.get("type") == NESTED}
        found = []
        for where, tree in self.trees.items():
            for one in below(tree):
                if isinstance(one, Member) and isinstance(one.of, Member) and one.of.name == "outputs" and isinstance(one.of.of, Call):
                    module = nested.get(target(one.of.of.arguments[0]))
                    if module and one.name not in module["properties"]["template"].get("outputs", {}):
                        found.append(f"{where}: the module has no output {one.name}")
        return found


def module_rules(resource, where):
    found, properties = [], resource["properties"]
    if properties.get("expressionEvaluationOptions", {}).get("scope") != "inner":
        found.append(f"{where}: the scope of a module's expressions must be inner, or its secrets are logged")
    if properties.get("debugSetting"):
        found.append(f"{where}: debugSetting logs what it should not")
    given, wanted = properties.get("parameters", {}), properties["template"].get("parameters", {})
    found += [f"{where}: the module has no parameter {name}" for name in given.keys() - wanted.keys()]
    needed = {name for name, one in wanted.items() if "defaultValue" not in one}
    return found + [f"{where}: the module's parameter {name} is not given" for name in needed - given.keys()]


def blanks(node, where):
    """Empty texts, lists and objects; an object under an expression, and the value of a parameter, may be empty."""
    if isinstance(node, dict):
        for key, one in node.items():
            if key == "template" or is_expression(key) or key == "value":
                continue
            yield from [f"{where}.{key}"] if one in ("", [], {}, None) else blanks(one, f"{where}.{key}")
    elif isinstance(node, list):
        for place, one in enumerate(node):
            yield from blanks(one, f"{where}[{place}]")


def identity(resource):
    """What `dependsOn` calls a resource: its type and the parts of its name."""
    tree = parsed(resource.get("name", ""))
    kind = resource.get("type", "")
    parts = [tree]
    if isinstance(tree, Call) and tree.name == "format" and re.fullmatch(r"(\{\d\}/)+\{\d\}", tree.arguments[0].value):
        parts = tree.arguments[1:]
    return f"{kind}({', '.join(map(printed, parts))})"


def target(tree):
    """The same of an expression that gives an id; its subscription and resource group do not matter."""
    if not isinstance(tree, Call) or tree.name not in ("resourceId", "extensionResourceId"):
        return None
    kind, *parts = tree.arguments[1:] if tree.name == "extensionResourceId" else tree.arguments
    return f"{kind.value}({', '.join(map(printed, parts))})" if isinstance(kind, Text) else None


def parameter_file(document, template):
    """A file of parameters fits its template and holds no secret."""
    found, declared = [], template.get("parameters", {})
    for name, one in document.get("parameters", {}).items():
        kind = declared.get(name, {}).get("type", "").lower()
        if not kind:
            found.append(f"parameters.{name}: the template has none of this name")
        elif kind.startswith("secure") and "value" in one:
            found.append(f"parameters.{name}: a secret in a file; give a reference to a vault or leave it out")
    needed = [name for name, one in declared.items() if "defaultValue" not in one]
    return found + [f"parameters.{name}: is needed" for name in needed if name not in document.get("parameters", {})]


def count(template):
    """How many resources, templates, expressions and parameters were looked at."""
    totals = {"templates": 1, "resources": len(template.get("resources", [])), "parameters": len(template.get("parameters", {})),
              "expressions": sum(is_expression(value) for _, value in strings(template))}
    for resource in template.get("resources", []):
        if resource.get("type") == NESTED:
            for key, number in count(resource["properties"]["template"]).items():
                totals[key] += number
    return totals
