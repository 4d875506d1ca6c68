"""LeRobot's Multi-Task DiT in any size, as a LeRobot policy of type ``small_multi_task_dit``.

LeRobot's own ``multi_task_dit`` sees and reads with a CLIP of the hub, whose two halves have 150 million parameters.
This type has halves of any size and random weights, and words of its own; denoiser, sampling and loss are
`MultiTaskDiTPolicy`'s.
"""
