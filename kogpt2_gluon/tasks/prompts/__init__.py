"""Prompts: how a task is asked in words. The YAML files here are those of the public tasks, one a task."""
