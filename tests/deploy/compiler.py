"""The official Bicep compiler: what it makes of the Bicep is azuredeploy.json, byte for byte, and its linter and its formatter have
nothing to say."""
import pathlib
import subprocess
import tempfile

DEADLINE_S = 120


class NoCompiler(Exception):
    """It is not here; the text says how to get it."""


def program(root):
    """Where it is. It is found, and its version is told, by scripts/bicep."""
    found = subprocess.run([root / "scripts/bicep"], capture_output=True, text=True, timeout=DEADLINE_S)
    if found.returncode:
        raise NoCompiler(found.stderr.strip())
    return found.stdout.strip()


def run(bicep, *arguments):
    """Everything that it says; an exit code other than 0 counts as something said."""
    done = subprocess.run([bicep, *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said or ([f"exit {done.returncode}"] if done.returncode else [])


def sources(root):
    return sorted((root / "deploy/bicep").rglob("*.bicep"))


def build(bicep, root, to):
    return [relative(line, root) for line in run(bicep, "build", root / "deploy/bicep/main.bicep", "--outfile", to)]


def check(bicep, root):
    """Findings, one a line."""
    found = made(bicep, root)
    found += [line for line in lint(bicep, root) if line not in found]
    return found + [line for source in sources(root) for line in formatted(bicep, root, source)]


def made(bicep, root):
    """What it says of the Bicep, and whether azuredeploy.json is what it makes."""
    with tempfile.TemporaryDirectory() as folder:
        to, stands = pathlib.Path(folder) / "azuredeploy.json", root / "deploy/arm/azuredeploy.json"
        found = build(bicep, root, to)
        if to.exists() and to.read_bytes() != stands.read_bytes():
            found.append(f"deploy/arm/azuredeploy.json is not what the Bicep says (line {first_difference(to, stands)}): "
                         "scripts/deploy-check --write makes it anew")
    return found


def formatted(bicep, root, source):
    with tempfile.TemporaryDirectory() as folder:
        to = pathlib.Path(folder) / "formatted.bicep"
        found = run(bicep, "format", source, "--outfile", to)
        if to.exists() and to.read_bytes() != source.read_bytes():
            found.append(f"{source.relative_to(root)} is not formatted (line {first_difference(to, source)}): "
                         "scripts/deploy-check --write formats it")
    return found


def lint(bicep, root):
    return [relative(line, root) for line in run(bicep, "lint", root / "deploy/bicep/main.bicep")]


def write(bicep, root):
    """Formats the Bicep and makes azuredeploy.json. Returns what the compiler says."""
    said = []
    for source in sources(root):
        said += run(bicep, "format", source, "--outfile", source)
    return said + build(bicep, root, root / "deploy/arm/azuredeploy.json")


def relative(line, root):
    return line.replace(f"{root}/", "")


def first_difference(one, other):
    pairs = zip(one.read_bytes().splitlines() + [b""], other.read_bytes().splitlines() + [b""])
    return next((place for place, (a, b) in enumerate(pairs, 1) if a != b), 0)
