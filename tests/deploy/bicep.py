"""Compiles the Bicep that deploy/bicep uses to an ARM template, in the forms of the official compiler, without .NET.

Covered: parameters with decorators, variables, resources (existing, parent, scope, if), modules in Bicep or JSON (scope, if), outputs,
and expressions without loops, lambdas and user-defined types. Anything else is an error, never a guess.
"""
import json
import pathlib

import tree_sitter_bicep
from tree_sitter import Language, Parser

PARSER = Parser(Language(tree_sitter_bicep.language()))
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
DEPLOYMENTS = "Microsoft.Resources/deployments"
DEPLOYMENTS_VERSION = "2025-04-01"
OPERATORS = {
    "==": "equals({}, {})", "!=": "not(equals({}, {}))", "&&": "and({}, {})", "||": "or({}, {})", "??": "coalesce({}, {})",
    "+": "add({}, {})", "-": "sub({}, {})", "*": "mul({}, {})", ">": "greater({}, {})", "<": "less({}, {})",
}
DECORATED = {"minValue", "maxValue", "minLength", "maxLength"}


class BicepError(Exception):
    """Bicep that does not parse, or that is beyond what is covered."""


class Expression(str):
    """Text of an ARM expression, without its brackets."""


class Symbol:
    """A resource or a module of the file."""

    def __init__(self, name, node, file):
        children = named(node)
        self.name, self.node, self.file = name, node, file
        self.is_module = node.type == "module_declaration"
        self.is_existing = any(child.type == "existing" or text(child) == "existing" for child in node.children)
        body = children[2]
        self.condition, self.body = (named(body) if body.type == "if_statement" else (None, body))
        reference = "".join(text(part) for part in named(children[1]))
        if self.is_module:
            self.path, self.type, self.version = reference, DEPLOYMENTS, DEPLOYMENTS_VERSION
        else:
            self.type, self.version = reference.split("@")
        self.properties = {text(named(one)[0]): named(one)[1] for one in named(self.body) if one.type == "object_property"}


def text(node):
    return node.text.decode()


def named(node):
    return [child for child in node.children if child.is_named and child.type != "comment"]


def quoted(string):
    return "'" + string.replace("'", "''") + "'"


def written(value):
    """A value as part of an ARM expression."""
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, bool):
        return "true()" if value else "false()"
    if value is None:
        return "null()"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"createArray({', '.join(map(written, value))})"
    pairs = [f"{quoted(key)}, {written(below)}" for key, below in value.items()]
    return f"createObject({', '.join(pairs)})"


def as_json(value):
    """A value as it stands in the template."""
    if isinstance(value, Expression):
        return f"[{value}]"
    if isinstance(value, str):
        return f"[{value}" if value.startswith("[") else value
    if isinstance(value, list):
        return [as_json(below) for below in value]
    return {key: as_json(below) for key, below in value.items()} if isinstance(value, dict) else value


class File:
    """One Bicep file on its way to a template."""

    def __init__(self, path, read):
        self.path, self.read = pathlib.PurePosixPath(path), read
        self.root = PARSER.parse(read(str(path)).encode()).root_node
        self.refuse_errors(self.root)
        self.parameters, self.variables, self.symbols = {}, {}, {}
        self.used = None
        for node in named(self.root):
            kind, children = node.type, named(node)
            if kind == "parameter_declaration":
                self.parameters[text(children[0])] = node
            elif kind == "variable_declaration":
                self.variables[text(children[0])] = node
            elif kind in ("resource_declaration", "module_declaration"):
                self.symbols[text(children[0])] = Symbol(text(children[0]), node, self)

    def fail(self, node, message):
        raise BicepError(f"{self.path}:{node.start_point[0] + 1}:{node.start_point[1] + 1}: {message}")

    def refuse_errors(self, node):
        if node.is_error or node.is_missing:
            self.fail(node, f"syntax error at {text(node)[:40]!r}")
        for child in node.children:
            if child.has_error or child.is_missing:
                self.refuse_errors(child)

    # Names and ids of resources and modules.

    def segments(self, symbol):
        """The parts of a resource's name, each as an expression."""
        name = written(self.value(symbol.properties["name"]))
        if "parent" in symbol.properties:
            return self.segments(self.symbols[text(symbol.properties["parent"])]) + [name]
        return [name]

    def group(self, symbol):
        """Subscription and resource group of a symbol with a scope of its own: `resourceGroup(subscription, name)`."""
        scope = symbol.properties.get("scope")
        if "parent" in symbol.properties:
            return self.group(self.symbols[text(symbol.properties["parent"])])
        if scope is None or scope.type != "call_expression":
            return None
        function, arguments = named(scope)
        if text(function) != "resourceGroup" or len(named(arguments)) != 2:
            self.fail(scope, "a scope is `resourceGroup(subscription, name)` or a resource")
        return [self.value(one) for one in named(arguments)]

    def id_of(self, symbol):
        names, group = ", ".join(self.segments(symbol)), self.group(symbol)
        if group is None:
            return Expression(f"resourceId({quoted(symbol.type)}, {names})")
        root = f"format('/subscriptions/{{0}}/resourceGroups/{{1}}', {written(group[0])}, {written(group[1])})"
        return Expression(f"extensionResourceId({root}, {quoted(symbol.type)}, {names})")

    def member(self, symbol, path, node):
        """`symbol.path`, such as `.id`, `.properties.x` or `.outputs.x`."""
        first, rest = path[0], "".join(f".{part}" for part in path[1:])
        if first == "id" and not rest:
            return self.id_of(symbol)
        if first == "name" and not rest:
            return self.value(symbol.properties["name"])
        if self.used is None:
            self.fail(node, "a variable must not hold what is known only after a resource exists")
        if symbol.is_module:
            if first != "outputs" or len(path) != 2:
                self.fail(node, "a module has `name` and `outputs.NAME`")
            return Expression(f"reference({self.id_of(symbol)}, {quoted(symbol.version)}).outputs.{path[1]}.value")
        if first == "properties":
            return Expression(f"reference({self.id_of(symbol)}, {quoted(symbol.version)}){rest}")
        return Expression(f"reference({self.id_of(symbol)}, {quoted(symbol.version)}, 'full').{first}{rest}")

    # Expressions.

    def value(self, node):
        handler = getattr(self, f"value_of_{node.type}", None)
        if handler is None:
            self.fail(node, f"not covered: {node.type}")
        return handler(node, named(node))

    value_of_parenthesized_expression = lambda self, _node, children: self.value(children[0])
    value_of_number = lambda self, node, _children: int(text(node))
    value_of_boolean = lambda self, node, _children: text(node) == "true"
    value_of_null = lambda self, _node, _children: None

    def value_of_string(self, node, children):
        raw = text(node)
        if raw.startswith("'''"):
            inside = raw[3:-3]
            return inside[1:] if inside.startswith("\n") else inside
        pattern, values = "", []
        for child in children:
            if child.type == "interpolation":
                pattern += f"{{{len(values)}}}"
                values.append(written(self.value(named(child)[0])))
            elif child.type == "escape_sequence":
                pattern += {"\\n": "\n", "\\t": "\t", "\\\\": "\\", "\\'": "'", "\\$": "$"}[text(child)]
            else:
                pattern += text(child).replace("{", "{{").replace("}", "}}")
        if not values:
            return pattern.replace("{{", "{").replace("}}", "}")
        return Expression(f"format({quoted(pattern)}, {', '.join(values)})")

    def value_of_identifier(self, node, _children):
        name = text(node)
        if name in self.parameters:
            return Expression(f"parameters({quoted(name)})")
        if name in self.variables:
            if self.used is not None:
                # For what it depends on: a variable may hold the id of a resource.
                self.value(named(self.variables[name])[1])
            return Expression(f"variables({quoted(name)})")
        self.fail(node, f"unknown name `{name}`" if name not in self.symbols else f"`{name}` needs a property")

    def value_of_member_expression(self, node, _children):
        suffixes, below = [], node
        while below.type in ("member_expression", "subscript_expression"):
            below, last = named(below)
            suffixes.insert(0, last)
        return self.accessed(below, suffixes, node)

    value_of_subscript_expression = value_of_member_expression

    def accessed(self, base, suffixes, node):
        """`base.a[b]`. The grammar takes `x ? y : z.a` for `(x ? y : z).a`; the language does not."""
        if base.type in ("ternary_expression", "binary_expression", "unary_expression"):
            *before, last = named(base)
            values = [written(self.value(child)) for child in before] + [written(self.accessed(last, suffixes, node))]
            return self.joined(base, values)
        path = [text(one) for one in suffixes if one.type == "property_identifier"]
        if base.type == "identifier" and text(base) in self.symbols:
            symbol = self.symbols[text(base)]
            if self.used is not None and not symbol.is_existing:
                self.used.add(symbol.name)
            if len(path) < len(suffixes):
                self.fail(node, "not covered: a subscript behind a resource")
            return self.member(symbol, path, node)
        value = written(self.value(base))
        for one in suffixes:
            value += f".{text(one)}" if one.type == "property_identifier" else f"[{written(self.value(one))}]"
        return Expression(value)

    def value_of_call_expression(self, _node, children):
        arguments = [written(self.value(one)) for one in named(children[1])]
        return Expression(f"{text(children[0])}({', '.join(arguments)})")

    def value_of_ternary_expression(self, node, children):
        return self.joined(node, [written(self.value(child)) for child in children])

    value_of_binary_expression = value_of_ternary_expression

    def value_of_unary_expression(self, node, children):
        value = self.value(children[0])
        return -value if text(node).startswith("-") else self.joined(node, [written(value)])

    def joined(self, node, values):
        """The operator of a node over its operands, which are written already."""
        if node.type == "ternary_expression":
            return Expression(f"if({', '.join(values)})")
        if node.type == "unary_expression":
            return Expression(f"not({values[0]})")
        operator = next(text(child) for child in node.children if not child.is_named)
        return Expression(OPERATORS[operator].format(*values))

    def value_of_array(self, _node, children):
        return [self.value(child) for child in children]

    def value_of_object(self, _node, children):
        made = {}
        for one in children:
            key, value = named(one)
            key = self.value(key) if key.type == "string" else text(key)
            made[f"[{key}]" if isinstance(key, Expression) else key] = self.value(value)
        return made

    # Declarations.

    def decorated(self, decorators):
        made = {}
        for one in decorators:
            function, arguments = named(named(one)[0])
            name, values = text(function), [as_json(self.value(argument)) for argument in named(arguments)]
            if name == "description":
                made.setdefault("metadata", {})["description"] = values[0]
            elif name == "allowed":
                made["allowedValues"] = values[0]
            elif name == "secure":
                made["secure"] = True
            elif name in DECORATED:
                made[name] = values[0]
            else:
                self.fail(one, f"not covered: @{name}")
        return made

    def parameter(self, node, decorators):
        children, made = named(node), self.decorated(decorators)
        kind = text(children[1])
        made = {"type": f"secure{kind}" if made.pop("secure", False) else kind, **made}
        if len(children) > 2:
            made["defaultValue"] = as_json(self.value(children[2]))
        return made

    def output(self, node, decorators):
        children = named(node)
        made = self.decorated(decorators)
        self.used = set()
        value = as_json(self.value(children[2]))
        self.used = None
        return {"type": text(children[1]), **made, "value": value}

    def resource(self, symbol):
        made = {"type": symbol.type, "apiVersion": symbol.version}
        self.used = set()
        if symbol.condition is not None:
            made = {"condition": as_json(self.value(symbol.condition)), **made}
        if symbol.is_module:
            made.update(self.module(symbol))
        else:
            made.update(self.plain(symbol))
        self.used |= self.demanded(symbol)
        needed = sorted(self.used - {symbol.name})
        self.used = None
        if needed:
            made["dependsOn"] = [f"[{self.id_of(self.symbols[name])}]" for name in needed]
        return made

    def demanded(self, symbol):
        """What `dependsOn`, `parent` and `scope` name."""
        named_there = [text(one) for one in named(symbol.properties["dependsOn"])] if "dependsOn" in symbol.properties else []
        for key in ("parent", "scope"):
            node = symbol.properties.get(key)
            if node is not None and node.type == "identifier":
                named_there.append(text(node))
        return {name for name in named_there if not self.symbols[name].is_existing}

    def plain(self, symbol):
        names = self.segments(symbol)
        made = {}
        if "scope" in symbol.properties:
            made["scope"] = f"[{self.id_of(self.symbols[text(symbol.properties['scope'])])}]"
        own = self.value(symbol.properties["name"])
        pattern = "/".join(f"{{{place}}}" for place in range(len(names)))
        made["name"] = as_json(own) if len(names) == 1 else f"[format({quoted(pattern)}, {', '.join(names)})]"
        for key, node in symbol.properties.items():
            if key not in ("name", "parent", "scope", "dependsOn"):
                made[key] = as_json(self.value(node))
        return made

    def module(self, symbol):
        made = {"name": as_json(self.value(symbol.properties["name"]))}
        group = self.group(symbol)
        if group is not None:
            made["subscriptionId"], made["resourceGroup"] = (as_json(part) for part in group)
        parameters = self.value(symbol.properties["params"]) if "params" in symbol.properties else {}
        template = compiled(str(self.path.parent / symbol.path), self.read)
        for name in parameters:
            if name not in template.get("parameters", {}):
                self.fail(symbol.node, f"{symbol.path} has no parameter `{name}`")
        for name, declared in template.get("parameters", {}).items():
            if "defaultValue" not in declared and name not in parameters:
                self.fail(symbol.node, f"{symbol.path} needs the parameter `{name}`")
        made["properties"] = {
            "expressionEvaluationOptions": {"scope": "inner"},
            "mode": "Incremental",
            "parameters": {name: {"value": as_json(value)} for name, value in parameters.items()},
            "template": template,
        }
        return made

    def template(self):
        made = {"$schema": SCHEMA, "contentVersion": "1.0.0.0", "parameters": {}, "variables": {}, "resources": [], "outputs": {}}
        decorators, metadata = [], {}
        for node in named(self.root):
            children = named(node)
            name = text(children[0]) if children else ""
            if node.type == "decorators":
                decorators = children
                continue
            if node.type == "metadata_declaration":
                metadata[name] = self.value(children[1])
            elif node.type == "parameter_declaration":
                made["parameters"][name] = self.parameter(node, decorators)
            elif node.type == "variable_declaration":
                made["variables"][name] = as_json(self.value(children[1]))
            elif node.type == "output_declaration":
                made["outputs"][name] = self.output(node, decorators)
            elif name in self.symbols and node.type.endswith("_declaration"):
                if not self.symbols[name].is_existing:
                    made["resources"].append(self.resource(self.symbols[name]))
            elif node.type != "target_scope_assignment":
                self.fail(node, f"not covered: {node.type}")
            decorators = []
        if metadata:
            made = {"$schema": made.pop("$schema"), "contentVersion": made.pop("contentVersion"), "metadata": metadata, **made}
        return {key: value for key, value in made.items() if value or key == "resources"}


def from_disk(path):
    return pathlib.Path(path).read_text()


def compiled(path, read=from_disk):
    """The template of a Bicep file, or a JSON template as it is; `read` gives the text of a path."""
    if str(path).endswith(".json"):
        return json.loads(read(str(path)))
    return File(path, read).template()


def printed(template):
    return json.dumps(template, indent=2, ensure_ascii=False) + "\n"
