"""LeRobot's pi0 in any size, as a LeRobot policy of type ``small_pi0``.

LeRobot's own ``pi0`` knows two sizes of Gemma, the smaller of which has 300 million parameters, and a tokenizer of the
hub. This type changes the sizes and the words, nothing else: sampling and loss are `PI0Policy`'s.
"""
