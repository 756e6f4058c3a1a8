"""Chains: runs one after the other, of which the later ones begin with networks of the earlier ones.

- chain_file.py: the file that names the stages, and what they refer to
- stages.py: a stage as a command, as a recipe, and as what its result depends on
- record.py: what has been done in the folder of a chain, from which it goes on after any end
- running.py: the loop over the stages
- planning.py: the checks before the first stage, and the plan as text
"""
