"""Every command that a person is told to run is one that a shell reads: those of docs/deploy.md and of the outputs."""
import re
import subprocess

import pytest
from world import ROOT, deployed

DOCUMENT = (ROOT / "docs/deploy.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.M | re.S)
INLINE = [text for text in re.findall(r"`([^`\n]+)`", DOCUMENT) if text.startswith(("az ", "for p in", "git ", "scripts/"))]
# What stands for a value of the reader's, and no more than that.
PLACES = re.compile(r"\.\.\.")


def complaint(text):
    """What bash says of it, without running it."""
    return subprocess.run(["bash", "-n"], input=PLACES.sub("x", text), capture_output=True, text=True).stderr


def test_there_is_something_to_check():
    assert len(BLOCKS) >= 6 and len(INLINE) >= 8


@pytest.mark.parametrize("text", BLOCKS + INLINE)
def test_a_command_of_the_document_is_read_by_a_shell(text):
    assert complaint(text) == ""


@pytest.mark.parametrize("mode", ["app", "job"])
def test_a_command_of_an_output_is_read_by_a_shell(mode):
    outputs = deployed(mode=mode).outputs
    for name in ("watchLogs", "rotateToken"):
        assert complaint(outputs[name]) == "", name
    assert "--expires" in outputs["rotateToken"]


def test_a_broken_command_is_found():
    assert "unexpected EOF" in complaint('az group create -n "opship')


def test_the_verbs_and_options_are_those_of_the_program():
    """A word that az has never had: known by the groups that the document uses."""
    groups = {"group", "provider", "role", "deployment", "monitor", "containerapp", "keyvault", "bicep", "login"}
    used = set(re.findall(r"\baz ([a-z-]+)", "\n".join(BLOCKS + INLINE)))
    assert used <= groups, used - groups
