"""Evaluation of language models: tasks as data, DCLM's scoring, standard errors on everything."""
