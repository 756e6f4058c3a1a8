"""Recipes: what to train. Installed as `kogpt2_recipes`; `kogpt2 train NAME` finds them by name."""
