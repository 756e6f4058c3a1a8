"""Searches for better settings: many runs of one recipe, most of which pause early and go on only if they deserve it.

- space.py: which settings, and which values
- rungs.py: which run goes on, and how far
- proposals.py: the settings of the next run, by Optuna
- study.py: the folder of a search, from which it goes on after any end
- study_file.py: Optuna's file in it
- slices.py: one run from one rung to the next, as a process
- failures.py: whether the search goes on after a run that ended badly
- searching.py: the loop over all that
- page.py: the page that shows it
"""
