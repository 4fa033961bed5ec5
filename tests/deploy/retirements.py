"""Versions of Azure's APIs whose end was announced: one within a year of it is no longer good for a template that people keep.

retirements.json: resource types by their beginning, the first version that stays, the day on which all before it end, where that is
announced, and when it was last looked up.
"""
import datetime

from nested import every

DAYS = 365


def check(template, announced, today=None):
    """A line for each resource whose version ends within a year."""
    today, found = today or datetime.date.today(), []
    for where, resource in every(template):
        kind, version = resource.get("type", ""), resource.get("apiVersion", "")
        for one in announced:
            ends = datetime.date.fromisoformat(one["ends"])
            if is_meant(kind, version, one) and (ends - today).days <= DAYS:
                found.append(f"{where}.apiVersion: {kind} before {one['before']} ends on {one['ends']} ({one['source']})")
    return found


def is_meant(kind, version, one):
    return kind.lower().startswith(one["types"].lower()) and version[:10] < one["before"]
