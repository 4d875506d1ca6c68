"""How many steps a vision-language-action policy needs, task by task, in the same worlds and from the same noise.

``python -m eval.experiments.vla policy=metaworld_ten n=20`` plays and writes the table; finished episodes are kept.
"""
