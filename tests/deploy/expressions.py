"""ARM template expressions: parsed to trees, found in documents, printed in one canonical form."""
import re
from dataclasses import dataclass, field

FUNCTIONS = set("""
add and array base64 base64ToJson base64ToString bool coalesce concat contains copyIndex createArray createObject cidrHost cidrSubnet
dataUri dataUriToString dateTimeAdd dateTimeFromEpoch dateTimeToEpoch deployer deployment div empty endsWith environment equals
extensionResourceId fail false filter first flatten float format greater greaterOrEquals groupBy guid if indexOf int intersection
items join json lambda lambdaVariables last lastIndexOf length less lessOrEquals list listAccountSas listKeys listSecrets
managementGroup managementGroupResourceId map mapValues max min mod mul newGuid not null objectKeys or padLeft parameters parseCidr
pickZones providers range reduce reference references replace resourceGroup resourceId shallowMerge skip sort split startsWith string
sub subscription subscriptionResourceId substring take tenant tenantResourceId toLower toObject toUpper trim true tryGet tryIndexFromEnd
union uniqueString uri uriComponent uriComponentToString utcNow variables
""".split())
TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>[A-Za-z_][\w-]*)|(?P<sign>[()\[\],.?]))")


class ExpressionError(Exception):
    """Text that is no expression."""


@dataclass(frozen=True)
class Text:
    value: str


@dataclass(frozen=True)
class Number:
    value: int


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple = field(default_factory=tuple)


@dataclass(frozen=True)
class Member:
    of: object
    name: str


@dataclass(frozen=True)
class Index:
    of: object
    at: object


def is_expression(value):
    return isinstance(value, str) and value.startswith("[") and not value.startswith("[[") and value.endswith("]")


def tokens(source):
    found, at = [], 0
    while source[at:].strip():
        match = TOKEN.match(source, at)
        if not match:
            raise ExpressionError(f"unexpected {source[at:at + 12]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return found + [("end", "the end")]


class Reader:
    def __init__(self, source):
        self.tokens, self.at = tokens(source), 0

    def next(self):
        token = self.tokens[self.at]
        self.at += token[0] != "end"
        return token

    def take(self, sign):
        if self.tokens[self.at] == ("sign", sign):
            self.at += 1
            return True
        return False

    def expect(self, sign):
        if not self.take(sign):
            raise ExpressionError(f"expected {sign!r}, found {self.tokens[self.at][1]!r}")

    def expression(self):
        kind, value = self.next()
        if kind == "text":
            node = Text(value[1:-1].replace("''", "'"))
        elif kind == "number":
            node = Number(int(value))
        elif kind == "name":
            self.expect("(")
            node = Call(value, tuple(self.arguments()))
        else:
            raise ExpressionError(f"unexpected {value!r}")
        return self.suffixed(node)

    def arguments(self):
        if self.take(")"):
            return
        yield self.expression()
        while self.take(","):
            yield self.expression()
        self.expect(")")

    def suffixed(self, node):
        while True:
            if self.take("."):
                self.take("?")
                kind, name = self.next()
                if kind != "name":
                    raise ExpressionError(f"expected a name behind the dot, found {name!r}")
                node = Member(node, name)
            elif self.take("["):
                node = Index(node, self.expression())
                self.expect("]")
            else:
                return node


def parsed(value):
    """The tree of an expression with its brackets; a plain string is a text."""
    if not is_expression(value):
        return Text(value[1:] if value.startswith("[[") else value)
    reader = Reader(value[1:-1])
    node = reader.expression()
    if reader.tokens[reader.at][0] != "end":
        raise ExpressionError(f"left over: {reader.tokens[reader.at][1]!r}")
    return node


def below(node):
    """A node and all nodes inside it."""
    yield node
    inside = {Call: lambda: node.arguments, Member: lambda: [node.of], Index: lambda: [node.of, node.at]}
    for one in inside.get(type(node), lambda: [])():
        yield from below(one)


def calls(node, *names):
    lowered = [name.lower() for name in names]
    return [one for one in below(node) if isinstance(one, Call) and (not names or one.name.lower() in lowered)]


def named_in(node, function):
    """The names in `function('name')`."""
    return {one.arguments[0].value for one in calls(node, function) if one.arguments and isinstance(one.arguments[0], Text)}


def printed(node):
    """One form for equal expressions: names of functions are not case-sensitive, and neither are types of resources."""
    if isinstance(node, Text):
        return "'" + node.value.replace("'", "''") + "'"
    if isinstance(node, Number):
        return str(node.value)
    if isinstance(node, Call):
        return f"{node.name.lower()}({', '.join(map(printed, node.arguments))})"
    if isinstance(node, Member):
        return f"{printed(node.of)}.{node.name}"
    return f"{printed(node.of)}[{printed(node.at)}]"


def strings(value, path="$"):
    """Every string of a document with its path, but not what is inside nested templates: those have names of their own."""
    if isinstance(value, dict):
        for key, one in value.items():
            if is_expression(key):
                yield f"{path}.{key}", key
            if key == "template" and isinstance(one, dict) and "$schema" in one:
                continue
            yield from strings(one, f"{path}.{key}")
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from strings(one, f"{path}[{place}]")
    elif isinstance(value, str):
        yield path, value
