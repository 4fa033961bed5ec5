"""The workflows of GitHub: what they run is pinned and stays, and a release comes after its tests and after anyone can pull its image.

runners.json: labels of runners whose end was announced, where, and when that was last looked up.
"""
import datetime
import json
import pathlib
import re

import yaml

DAYS = 365
PINNED = re.compile(r"^\s*(?:- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", re.M)
TESTS = "./.github/workflows/test.yml"
ANYONE = "scripts/packaging/anyone"
RUNNERS = pathlib.Path(__file__).parent / "runners.json"
# Names of lock files, and who of dependabot renews them.
LOCKS = {"Cargo.lock": "cargo", "package-lock.json": "npm", "requirements.txt": "pip"}
NOT_OURS = {"target", "node_modules", ".git"}


def check(root, today=None):
    texts = {path.name: path.read_text() for path in sorted((root / ".github/workflows").glob("*.yml"))}
    found = [f"{name}: {line}" for name, text in texts.items() for line in of_workflow(text, today or datetime.date.today())]
    return found + release(read(texts["release.yml"]), read(texts["test.yml"])) + dependabot(root)


def read(text):
    """YAML 1.1 takes the key `on` for true."""
    document = yaml.safe_load(text)
    document["on"] = document.pop(True, document.get("on"))
    return document


def of_workflow(text, today):
    document = read(text)
    if document.get("permissions") != {"contents": "read"}:
        yield "permissions: contents: read, and what else a job asks for itself"
    pinned = len(PINNED.findall(text)) + len(re.findall(r"uses: \./", text))
    if pinned != len(re.findall(r"\buses:", text)):
        yield "an action is not pinned by digest with its version behind it"
    for name, job in document["jobs"].items():
        if "uses" in job:
            continue
        if "timeout-minutes" not in job:
            yield f"{name}: has no timeout-minutes"
        for label in labels(job):
            yield from (f"{name}: {line}" for line in runner(label, today))


def labels(job):
    label, matrix = job["runs-on"], job.get("strategy", {}).get("matrix", {})
    named = re.fullmatch(r"\$\{\{ matrix\.(\w+) \}\}", label)
    return matrix[named[1]] if named else [label]


def runner(label, today):
    if label.endswith("-latest"):
        yield f"the runner {label} is another one each year: name its version"
    for one in json.loads(RUNNERS.read_text()):
        if label in one["labels"] and (datetime.date.fromisoformat(one["ends"]) - today).days <= DAYS:
            yield f"the runner {label} ends on {one['ends']} ({one['source']})"


def steps_of(job):
    return [step.get("run", "") for step in job.get("steps", [])]


def release(document, tests):
    """What is announced has passed the tests and can be pulled without an account."""
    jobs = document["jobs"]
    testing = [name for name, job in jobs.items() if job.get("uses") == TESTS]
    found = [f"release.yml: {name} does not need the tests" for name, job in jobs.items()
             if name not in testing and not set(testing) & before(jobs, name)]
    for event in ("push", "pull_request", "workflow_call"):
        if event not in tests["on"]:
            found.append(f"test.yml: does not run on {event}")
    if not any(re.search(r"^scripts/test$", run.strip(), re.M) for job in tests["jobs"].values() for run in steps_of(job)):
        found.append("test.yml: does not run scripts/test")
    for name, job in jobs.items():
        runs = steps_of(job)
        announced = next((place for place, run in enumerate(runs) if "gh release create" in run), None)
        if announced is not None and not any(ANYONE in run for run in runs[:announced]):
            found.append(f"release.yml: {name} announces an image that nobody has pulled without an account")
    return found


def before(jobs, name):
    """The jobs that a job waits for, at any distance."""
    needs = jobs[name].get("needs", [])
    needs = {needs} if isinstance(needs, str) else set(needs)
    return needs.union(*(before(jobs, one) for one in needs))


def dependabot(root):
    """Each lock file has somebody who renews it."""
    updates = yaml.safe_load((root / ".github/dependabot.yml").read_text())["updates"]
    known = {(one["package-ecosystem"], folder) for one in updates for folder in one.get("directories", [one.get("directory")])}
    wanted = {("github-actions", "/")}
    for path in root.rglob("*"):
        if path.name in LOCKS and not NOT_OURS & set(path.relative_to(root).parts):
            wanted.add((LOCKS[path.name], f"/{path.parent.relative_to(root)}".replace("/.", "/")))
    found = [f"dependabot.yml: nobody renews {kind} in {folder}" for kind, folder in sorted(wanted - known)]
    return found + [f"dependabot.yml: there is no {kind} in {folder}" for kind, folder in sorted(known - wanted)]
