"""LeRobot's Diffusion Policy with a small vision tower, as a LeRobot policy of type ``small_diffusion``.

LeRobot's own ``diffusion`` sees with a ResNet of torchvision, the smallest of which has 11 million parameters for each
camera. This type has a ResNet of any width, nothing else: U-Net, sampling and loss are `DiffusionPolicy`'s.
"""
