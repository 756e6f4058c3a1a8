"""Tests: a folder for each room of the package, with its helpers in it."""
