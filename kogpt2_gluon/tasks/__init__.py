"""Judges a trained network: tasks with their data, heads, metrics, baselines and prompts.

The words of this room:

task    a question about texts, with a data set, the kind of its answers and its metric: NSMC, KorSTS, ...
row     one text or a pair of texts, and the answer
split   the rows of one purpose: train, dev or test
head    what turns the network's hidden states into answers: classification, regression, token labels, joint
label   the name of a class
span    a stretch of characters with a kind, such as a person's name
shot    a solved row in a prompt
"""
