"""Evaluates a template as Azure would, for given parameters: which resources there are, and what stands in them.

What only Azure knows (ids of identities, addresses of endpoints) becomes a readable mark such as `<identity.principalId>`.
"""
import functools
import hashlib
import json
from datetime import datetime, timezone

from expressions import Call, Index, Member, Number, Text, is_expression, parsed

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
GROUP = {"id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg", "name": "rg", "location": "westeurope"}
CLOUDS = {
    "AzureCloud": {"keyvaultDns": ".vault.azure.net", "storage": "core.windows.net"},
    "AzureUSGovernment": {"keyvaultDns": ".vault.usgovcloudapi.net", "storage": "core.usgovcloudapi.net"},
}
NESTED = "Microsoft.Resources/deployments"


class Unknown(str):
    """What only Azure knows."""


def hashed(*parts):
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def resource_id(kind, *names, root=GROUP["id"]):
    provider, *types = kind.split("/")
    return f"{root}/providers/{provider}/" + "/".join(f"{one}/{name}" for one, name in zip(types, names, strict=True))


def same(one, other):
    return one.lower() == other.lower() if isinstance(one, str) and isinstance(other, str) else one == other


def epoch(text):
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())


def formatted(pattern, *values):
    for place, value in enumerate(values):
        pattern = pattern.replace(f"{{{place}}}", str(value))
    return Unknown(pattern) if any(isinstance(value, Unknown) for value in values) else pattern


def piece(text, start, count=None):
    if start + (count or 0) > len(text):
        raise ValueError(f"substring({text!r}, {start}, {count}) is beyond its end")
    return text[start:] if count is None else text[start:start + count]


def got(of, key):
    """tryGet: nothing where there is none of this name."""
    return Unknown(f"{of[:-1]}.{key}>") if isinstance(of, Unknown) else of.get(key)


def keyed(all_of, key, value=lambda one: one):
    """toObject: two keys that differ by case alone are one too many."""
    made = {key(one): value(one) for one in all_of}
    if len({name.lower() for name in made}) != len(all_of):
        raise ValueError(f"toObject: a key is there twice: {', '.join(map(key, all_of))}")
    return made


def united(*all_of):
    """union: of objects, the last one's value wins; of lists, each value once."""
    if isinstance(all_of[0], dict):
        return {key: value for one in all_of for key, value in one.items()}
    found = []
    return [found.append(value) or value for one in all_of for value in one if value not in found]


def joined(*parts):
    return [one for part in parts for one in part] if isinstance(parts[0], list) else "".join(parts)


PURE = {
    "and": lambda *all_of: all(all_of), "or": lambda *any_of: any(any_of), "not": lambda one: not one,
    "equals": same, "empty": lambda one: not one, "concat": joined, "format": formatted,
    "take": lambda one, count: one[:count], "last": lambda one: one[-1], "split": lambda one, sign: one.split(sign),
    "replace": lambda one, old, new: one.replace(old, new), "join": lambda all_of, sign: sign.join(all_of),
    "contains": lambda where, what: what in where, "max": max, "mul": lambda a, b: a * b, "mod": lambda a, b: a % b, "sub": lambda a, b: a - b,
    "json": json.loads, "null": lambda: None, "true": lambda: True, "false": lambda: False,
    "union": united, "length": len, "range": lambda first, count: list(range(first, first + count)), "int": int, "first": lambda one: one[0],
    "toLower": str.lower, "toUpper": str.upper, "startsWith": lambda one, begin: one.lower().startswith(begin.lower()),
    "endsWith": lambda one, end: one.lower().endswith(end.lower()), "substring": piece, "tryGet": got,
    "greater": lambda a, b: a > b, "greaterOrEquals": lambda a, b: a >= b, "less": lambda a, b: a < b, "lessOrEquals": lambda a, b: a <= b,
    "coalesce": lambda *any_of: next((one for one in any_of if one is not None), None),
    "filter": lambda all_of, wanted: [one for one in all_of if wanted(one)], "map": lambda all_of, made: [made(one) for one in all_of],
    "mapValues": lambda one, made: {key: made(value) for key, value in one.items()},
    "reduce": lambda all_of, first, made: functools.reduce(made, all_of, first),
    "items": lambda one: [{"key": key, "value": one[key]} for key in sorted(one, key=str.lower)],
    "objectKeys": lambda one: sorted(one, key=str.lower), "toObject": keyed,
    "createArray": lambda *all_of: list(all_of),
    "createObject": lambda *pairs: dict(zip(pairs[::2], pairs[1::2])),
    "uniqueString": lambda *parts: hashed(*parts)[:13], "guid": lambda *parts: hashed("guid", *parts)[:32],
    "newGuid": lambda: "11111111-1111-1111-1111-111111111111",
    "dateTimeToEpoch": epoch,
    "tenant": lambda: {"tenantId": "00000000-0000-0000-0000-000000000003"}, "resourceGroup": lambda: GROUP,
    "resourceId": resource_id, "subscriptionResourceId": lambda kind, *names: resource_id(kind, *names, root=""),
    "extensionResourceId": lambda root, kind, *names: resource_id(kind, *names, root=root),
}


def limited(name, declared, value):
    """Azure refuses a value that its parameter does not take before it makes anything."""
    allowed = declared.get("allowedValues")
    if allowed and not all(part in allowed for part in (value if isinstance(value, list) else [value])):
        raise ValueError(f"{name}: {value!r} is not allowed")
    if isinstance(value, Unknown):
        return
    size = value if declared["type"] == "int" else len(value) if isinstance(value, (str, list)) else None
    least, most = declared.get("minLength", declared.get("minValue")), declared.get("maxLength", declared.get("maxValue"))
    if (least is not None and size < least) or (most is not None and size > most):
        raise ValueError(f"{name}: {value!r} is beyond {least} to {most}")


class Deployment:
    """`there` is what Azure has already: id of a resource -> its properties."""

    def __init__(self, template, given, cloud="AzureCloud", root=GROUP["id"], there=None, name="main"):
        self.template, self.cloud, self.root, self.outputs = template, cloud, root, {}
        self.there = {key.lower(): properties for key, properties in (there or {}).items()}
        self.name, self.bound = name, {}
        declared = template.get("parameters", {})
        self.parameters = {}
        for name, one in declared.items():
            self.parameters[name] = given[name] if name in given else self.value(one["defaultValue"])
            limited(name, one, self.parameters[name])
        self.modules = {}
        self.resources = list(self.deployed())
        self.outputs = {name: self.value(one["value"]) for name, one in template.get("outputs", {}).items()}

    def deployed(self):
        for resource in self.in_order():
            if not self.value(resource.get("condition", True)):
                continue
            if resource["type"] != NESTED:
                keys = [key for key in resource if key not in ("dependsOn", "condition")]
                yield {key: self.value(resource[key]) for key in keys}
                continue
            root = self.root
            if "resourceGroup" in resource:
                root = f"/subscriptions/{self.value(resource['subscriptionId'])}/resourceGroups/{self.value(resource['resourceGroup'])}"
            properties = resource["properties"]
            given = {name: self.value(one)["value"] for name, one in properties.get("parameters", {}).items()}
            name = self.value(resource["name"])
            nested = self.modules[name] = Deployment(properties["template"], given, self.cloud, root, self.there, name)
            yield from nested.resources

    def in_order(self):
        """Modules after those whose outputs they use: they stand in this order in the file."""
        return self.template.get("resources", [])

    def value(self, node):
        if isinstance(node, dict):
            return {(self.value(key) if is_expression(key) else key): self.value(one) for key, one in node.items()}
        if isinstance(node, list):
            return [self.value(one) for one in node]
        return self.tree(parsed(node)) if isinstance(node, str) else node

    def tree(self, node):
        if isinstance(node, (Text, Number)):
            return node.value
        if isinstance(node, Call):
            return self.call(node)
        of = self.tree(node.of)
        key = node.name if isinstance(node, Member) else self.tree(node.at)
        if isinstance(of, Unknown):
            return Unknown(f"{of[:-1]}.{key}>")
        return of[key]

    def call(self, node):
        if node.name == "if":
            condition, yes, no = node.arguments
            return self.tree(yes if self.tree(condition) else no)
        if node.name == "lambda":
            return self.function(node)
        values = [self.tree(one) for one in node.arguments]
        if node.name == "parameters":
            return self.parameters[values[0]]
        if node.name == "lambdaVariables":
            return self.bound[values[0]]
        if node.name == "deployment":
            return {"name": self.name}
        if node.name == "variables":
            return self.value(self.template["variables"][values[0]])
        if node.name == "environment":
            return {"name": self.cloud, "suffixes": CLOUDS[self.cloud]}
        if node.name == "reference":
            return self.reference(*values)
        if node.name == "resourceId":
            return resource_id(*values, root=self.root)
        return PURE[node.name](*values)

    def function(self, node):
        """A lambda: its names are known in its body, and those around it too."""
        *names, body = node.arguments
        around = dict(self.bound)

        def called(*values):
            before, self.bound = self.bound, {**around, **{one.value: value for one, value in zip(names, values)}}
            try:
                return self.tree(body)
            finally:
                self.bound = before
        return called

    def reference(self, of, _version=None, _full=None):
        if of.lower() in self.there:
            return self.there[of.lower()]
        if "/tables/" in of:
            raise LookupError(f"ResourceNotFound: {of}")
        name = of.rsplit("/", 1)[1]
        if f"/providers/{NESTED}/" in of:
            return {"outputs": {key: {"value": value} for key, value in self.modules[name].outputs.items()}}
        return Unknown(f"<{name}>")
