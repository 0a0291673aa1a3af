"""The disk as it is."""

import os

import pytest

from tests.conftest import SYNC


@pytest.fixture(autouse=True)
def _synced(monkeypatch):
    monkeypatch.setattr(os, "fsync", SYNC)
