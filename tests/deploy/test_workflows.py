"""The workflows: right as they are, able to be wrong; and the last look before a release is announced."""
import datetime
import os
import shutil
import subprocess

import pytest
from world import ROOT

import workflows

ANYONE = ROOT / "scripts/packaging/anyone"


@pytest.fixture
def tree(tmp_path):
    """The workflows, and the lock files that dependabot is to know."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    for kind, folder in [("Cargo.lock", ""), ("Cargo.lock", "fuzz"), *(("package-lock.json", f"tests/{name}") for name in ("azurite", "kql", "ui")),
                         *(("requirements.txt", name) for name in ("scripts/packaging", "tests/deploy", "tests/kql"))]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / kind).write_text("")
    return tmp_path


def test_the_workflows_are_free_of_findings():
    assert workflows.check(ROOT) == []
    assert sorted(path.name for path in (ROOT / ".github/workflows").iterdir()) == ["deploy.yml", "release.yml", "test.yml"]


@pytest.mark.parametrize(("file", "old", "new", "told"), [
    ("test.yml", "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "test.yml: an action is not pinned by digest"),
    ("test.yml", " # v7.0.1", "", "test.yml: an action is not pinned by digest"),
    ("test.yml", "runs-on: ubuntu-24.04", "runs-on: ubuntu-22.04", "test.yml: test: the runner ubuntu-22.04 ends on 2027-04-17"),
    ("test.yml", "runs-on: ubuntu-24.04", "runs-on: ubuntu-latest", "the runner ubuntu-latest is another one each year"),
    ("test.yml", "    timeout-minutes: 90\n", "", "test.yml: test: has no timeout-minutes"),
    ("test.yml", "  contents: read", "  contents: write", "test.yml: permissions: contents: read"),
    ("test.yml", "  pull_request:\n", "", "test.yml: does not run on pull_request"),
    ("test.yml", "        run: scripts/test\n", "        run: scripts/test --help\n", "test.yml: does not run scripts/test"),
    ("release.yml", "ubuntu-24.04-arm]", "ubuntu-22.04-arm]", "release.yml: build: the runner ubuntu-22.04-arm ends on"),
    ("release.yml", "    needs: test\n", "", "release.yml: build does not need the tests"),
    ("release.yml", "        run: scripts/packaging/anyone", "        run: docker pull", "publish announces an image that nobody has pulled"),
    ("../dependabot.yml", "/tests/kql, /tests/ui", "/tests/ui", "dependabot.yml: nobody renews npm in /tests/kql"),
    ("../dependabot.yml", "[/, /fuzz]", "[/, /fuzz, /agent]", "dependabot.yml: there is no cargo in /agent"),
])
def test_a_mistake_in_a_workflow_is_found(tree, file, old, new, told):
    path = tree / ".github/workflows" / file
    text = path.read_text()
    assert workflows.check(tree) == [] and old in text
    path.write_text(text.replace(old, new, 1))
    found = workflows.check(tree)
    assert told in found[0] and len(found) <= 2, found


def test_a_runner_is_good_until_a_year_before_its_end():
    on = [len(list(workflows.runner("ubuntu-22.04", datetime.date.fromisoformat(day)))) for day in ("2026-04-16", "2026-04-17", "2028-01-01")]
    assert on == [0, 1, 1] and list(workflows.runner("ubuntu-24.04", datetime.date(2026, 12, 1))) == []


def test_pulling_before_the_announcement_not_after_it(tree):
    path = tree / ".github/workflows/release.yml"
    pull, announcement = path.read_text().split("      - name: Anyone can pull it\n")[1].split("      - name: The release\n")
    path.write_text(path.read_text().split("      - name: Anyone can pull it\n")[0] + f"      - name: The release\n{announcement}"
                    f"      - name: Anyone can pull it\n{pull}")
    assert workflows.check(tree) == ["release.yml: publish announces an image that nobody has pulled without an account"]


def test_packages_are_built_in_the_distribution_that_they_are_for():
    job = workflows.read((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["build"]
    assert job["container"]["image"] == "debian:12" and "for Debian 12 and" in (ROOT / "docs/packages.md").read_text()
    assert "glibc_max=2.34\n" in (ROOT / "scripts/packaging/binary").read_text()


def test_false_alarms_of_arm_ttk_are_excused_by_name_and_nothing_else_is():
    text = (ROOT / ".github/workflows/deploy.yml").read_text()
    assert "'URIs-Should-Be-Properly-Constructed' = '\\b(tokenSecretUri|containerUrl)\\b'" in text and "Two false alarms: " in text
    assert text.count("-Skip ") == 1 and "-Skip apiVersions-Should-Be-Recent, apiVersions-Should-Be-Recent-In-Reference-Functions\n" in text


def pull(tmp_path, answer):
    """The look at an image, with a docker that writes down how it was called and answers with `answer`."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/usr/bin/env bash\necho "$(ls -A "$DOCKER_CONFIG" | wc -l) files, $*" >> "{tmp_path}/calls"\n{answer}\n')
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANYONE_TRIES": "2", "ANYONE_WAIT_S": "0"}
    done = subprocess.run([ANYONE, "ghcr.io/opship/opship@sha256:abc"], env=environment, capture_output=True, text=True)
    return done, (tmp_path / "calls").read_text().splitlines()


def test_an_image_that_anyone_can_pull_is_announced(tmp_path):
    done, calls = pull(tmp_path, "exit 0")
    assert done.returncode == 0 and "anyone can pull it" in done.stdout
    assert calls == [f"0 files, pull --quiet --platform linux/{kind} ghcr.io/opship/opship@sha256:abc" for kind in ("amd64", "arm64")]


def test_an_image_that_needs_an_account_is_not_announced_and_the_remedy_is_told(tmp_path):
    done, calls = pull(tmp_path, "echo denied >&2; exit 1")
    assert done.returncode == 1 and len(calls) == 2
    for words in ("cannot be pulled without an account", "must be made public", "page of the package opship", "Change visibility"):
        assert words in done.stdout


def test_a_package_that_was_just_made_public_gets_a_second_chance(tmp_path):
    done, calls = pull(tmp_path, f'[ "$(wc -l < "{tmp_path}/calls")" -gt 1 ]')
    assert done.returncode == 0 and len(calls) == 3
